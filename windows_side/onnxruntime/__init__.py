"""Runs an artifact in onnxruntime, whose plugin of NVIDIA's runs the engines. Imports no torch."""
