"""Measures the latency, throughput and first call of an artifact, and compares them with a baseline."""
