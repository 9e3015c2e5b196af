"""What is on pages about artifacts, on either side: the graph as a picture, engines, sizes, what a machine needs."""
