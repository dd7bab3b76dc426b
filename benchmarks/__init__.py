"""Ratios, each against a named baseline in the same run; no test depends on them."""
