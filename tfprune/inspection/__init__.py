"""What is in a model, what could go, and what that would cost: the work of ``inspect``."""
