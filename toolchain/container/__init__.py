"""The zip container: reads, writes and splices archives of stored (uncompressed) entries."""
