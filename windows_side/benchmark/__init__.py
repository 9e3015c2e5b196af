"""Latency, throughput and first call of an artifact, and baselines to compare them with."""
