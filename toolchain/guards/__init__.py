"""Guards: conditions on the sizes in a call, as text in a strict grammar, with an evaluator of our own."""
