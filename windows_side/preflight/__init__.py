"""Whether an artifact can run on this machine, decided before any engine is touched."""
