"""Teachers: what draws pseudo-labels on a pool that nobody has labelled."""
