"""The verbs that need neither the producer's nor the consumer's side."""
