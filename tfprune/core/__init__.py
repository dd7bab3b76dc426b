"""The numeric heart, on numpy and scipy alone: moments, angles, selection, folds."""
