"""Whole experiments: sweeps over seeds, and collecting, pooling and tracing what experiments gave."""
