"""Reads the samples of files: arrays, the columns of tables, records, pictures."""
