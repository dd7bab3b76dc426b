"""Five published studies of MNIST as data, and one runner that repeats their experiments.

No other package imports it.
"""
