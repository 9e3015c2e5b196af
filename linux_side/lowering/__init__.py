"""From an exported program to partitions and engines."""
