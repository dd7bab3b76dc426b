"""Accuracy against bytes, over many settings."""
