"""Output folders: many files written in one step, or none."""
