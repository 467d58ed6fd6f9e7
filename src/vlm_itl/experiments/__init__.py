"""Whole experiments: running the graph and sweeps over it, and collecting, pooling and tracing what they gave."""
