"""Engines by TensorRT-RTX's own API and CUDA's bindings, without PyTorch."""
