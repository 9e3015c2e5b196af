"""Decides whether an artifact can run on this machine, before any engine is touched."""
