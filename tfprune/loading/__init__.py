"""Model files: read as data, checked, and only then built by Keras."""
