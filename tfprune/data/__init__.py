"""Data sets, their splits, scores on them, and the built-in networks."""
