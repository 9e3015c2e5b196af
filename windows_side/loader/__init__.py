"""Loads a checked artifact onto a GPU."""
