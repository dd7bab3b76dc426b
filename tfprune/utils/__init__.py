"""Helpers of all packages: files, untrusted text, processes, the console."""
