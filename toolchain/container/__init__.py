"""The zip container: reading, writing and splicing archives of stored entries."""
