"""The matrix: plans, builds, verifies and reports many models for many precisions and targets."""
