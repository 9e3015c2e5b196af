"""Verifies an artifact level by level, from integrity to numbers."""
