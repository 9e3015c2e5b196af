"""The manifest: its models, how it is read, and the set-up lines that it holds."""
