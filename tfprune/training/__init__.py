"""Training in Keras: distillation and fine-tuning."""
