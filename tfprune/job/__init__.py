"""The work of the command ``export``."""
