"""This machine: its packages, GPUs and memory, and requirements on it."""
