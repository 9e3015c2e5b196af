"""The user's model: finding it, its dynamic shapes and precision, exporting it, and golden I/O."""
