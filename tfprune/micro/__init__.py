"""TensorFlow Lite Micro and microcontroller boards."""
