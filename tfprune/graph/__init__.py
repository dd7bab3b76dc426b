"""Keras models traced, grouped, measured, cloned and rebuilt."""
