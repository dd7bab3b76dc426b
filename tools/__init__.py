"""The commands as modules, ``python -m tools.NAME``; what they do is in ``tfprune.cli``."""
