"""Mixed precision: decides which operators of an exported fp32 graph compute in halves, and inserts the casts."""
