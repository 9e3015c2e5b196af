"""What an artifact must satisfy before anyone loads it: structure, integrity, and nothing in it that runs code."""
