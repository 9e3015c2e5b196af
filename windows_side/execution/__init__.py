"""Runs a loaded model: calls, input checks, CUDA graphs, kernel cache and samples."""
