"""Artifacts that Torch-TensorRT wrote without trtcross: their engines and a manifest derived from them."""
