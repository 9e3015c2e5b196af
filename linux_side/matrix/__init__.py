"""Many models, precisions and targets: what to build, where, and how it went."""
