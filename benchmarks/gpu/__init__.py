"""Benchmarks that need an NVIDIA GPU, of artifacts that were built on a machine without one."""
