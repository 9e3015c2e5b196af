"""The verbs of the consumer."""
