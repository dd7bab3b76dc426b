"""What a model's outputs decide, and how far two models' outputs are apart."""
