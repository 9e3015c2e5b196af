"""A loaded model at work: calls, input checks, CUDA graphs, kernel cache and samples."""
