"""Compiles an artifact's kernels ahead of its first call, in a process of its own, into the runtime cache."""
