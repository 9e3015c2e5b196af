"""Artifacts that Torch-TensorRT wrote without trtcross: finds their engines and derives a manifest."""
