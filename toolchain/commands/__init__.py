"""The verbs that need neither side."""
