"""Weights fitted after pruning, without labels, to what the original model computes."""
