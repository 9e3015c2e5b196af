"""From a checked artifact to a model on a GPU."""
