"""TFLite files: converted, read, minified, run."""
