"""The command line: finding verbs, their shared options, and what they print."""
