"""An artifact in onnxruntime, its engines run by NVIDIA's plugin. Imports no torch."""
