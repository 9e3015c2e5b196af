"""Pages of checks, verifications and benchmarks, and JUnit files of verifications."""
