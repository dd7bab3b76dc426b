"""Five published studies of MNIST as data, and one runner that repeats their experiments.

Above all rooms of the package: nothing of the package imports it.
"""
