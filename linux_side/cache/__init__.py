"""The build cache: artifacts kept by what went into them. Imports no torch."""
