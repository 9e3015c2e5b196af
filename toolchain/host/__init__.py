"""This machine: its packages, GPUs and what it meets of a list of requirements."""
