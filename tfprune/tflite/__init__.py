"""TFLite files: made, read, made smaller, run."""
