"""Mixed precision: which operators of an exported fp32 graph compute in halves, and which stay in fp32."""
