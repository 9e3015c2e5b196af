"""The graph text of an artifact: reading, writing, and its skeleton without engines."""
