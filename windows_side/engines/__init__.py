"""Runs engines by TensorRT-RTX's own API and CUDA's bindings. Imports no torch."""
