"""The graph of an artifact as text and as data: reads, checks and writes it, without torch."""
