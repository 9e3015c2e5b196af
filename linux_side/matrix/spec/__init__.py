"""The matrix file: its models, its cells and the selectors of cells."""
