"""The main job of the command ``export``."""
