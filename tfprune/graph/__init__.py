"""Keras models taken apart, followed, copied and rebuilt."""
