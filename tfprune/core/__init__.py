"""Numeric core on numpy and scipy alone: moments, angles, selection, folds."""
