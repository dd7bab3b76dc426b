"""Samples in several files, each read where a worker is; what was summed there adds up."""
