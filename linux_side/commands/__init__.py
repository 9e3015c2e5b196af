"""The verbs of the producer."""
