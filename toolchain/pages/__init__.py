"""The contents of pages about artifacts: the graph as a picture, engines, sizes, requirements on a machine."""
