"""Keras models from `model.to_json()`: their layers, and their memory on the CPU and on GPUs."""
