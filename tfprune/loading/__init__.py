"""Model files: read as data and checked before Keras builds them."""
