"""Graphs of torch.fx: copying them, their values, and the state that they change."""
