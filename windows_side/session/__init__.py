"""Runs artifacts without PyTorch: TensorRT-RTX's own Python package, CUDA's bindings and numpy."""
