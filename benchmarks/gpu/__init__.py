"""Benchmarks that need an NVIDIA GPU, over artifacts that were built on a machine without one."""
