"""Pieces of work done by other processes, on this machine or on those of a Dask cluster."""
