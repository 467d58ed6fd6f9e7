"""How sure a difference of two arms is. Nothing here loads torch."""
