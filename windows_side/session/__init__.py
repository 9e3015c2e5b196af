"""Runs artifacts without PyTorch, by TensorRT-RTX's own Python package, CUDA's bindings and numpy."""
