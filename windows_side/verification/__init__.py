"""Levels of verification, from integrity to numbers."""
