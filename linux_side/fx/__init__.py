"""Tools for torch.fx graphs: copies, values, state, sizes, source lines, and weights on disk."""
