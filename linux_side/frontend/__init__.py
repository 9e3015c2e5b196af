"""Loads and exports the user's model, with its dynamic shapes, its state and golden I/O."""
