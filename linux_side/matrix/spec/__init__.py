"""The matrix file: reads it, makes its cells, and selects cells."""
