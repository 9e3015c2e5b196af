"""Compares what our code assumes about Torch-TensorRT with its released wheels, without importing them."""
