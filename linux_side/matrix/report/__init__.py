"""How a matrix went, for people and CI: one HTML page, JUnit XML, Markdown."""
