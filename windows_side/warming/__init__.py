"""Compiles an artifact's kernels before its first call, in a process of its own, into the kernel cache."""
