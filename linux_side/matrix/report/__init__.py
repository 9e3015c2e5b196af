"""Reports the outcome of a matrix, for people and CI, as an HTML page, JUnit XML and Markdown."""
