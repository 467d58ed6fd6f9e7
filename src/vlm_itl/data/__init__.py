"""Data sets of the experiment."""
