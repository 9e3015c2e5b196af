"""Lowers an exported program, partitions it, and converts the partitions to engines."""
