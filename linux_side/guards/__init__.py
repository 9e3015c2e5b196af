"""Guards of a program: collects them from torch, translates them into our grammar, and removes redundant ones."""
