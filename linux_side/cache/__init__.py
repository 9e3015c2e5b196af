"""The build cache: artifacts stored under a digest of everything that they were built from. Imports no torch."""
