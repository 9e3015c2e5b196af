"""The command line: how verbs are found, the options that they share, and what they print."""
