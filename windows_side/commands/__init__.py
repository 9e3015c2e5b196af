"""The consumer's verbs of the command line."""
