"""Engines as Torch-TensorRT stores them: engine info, plan headers, releases and metadata."""
