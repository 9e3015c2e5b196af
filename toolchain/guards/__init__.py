"""Guards: what must be true of the sizes in a call, as text in a strict grammar, with an evaluator of our own."""
