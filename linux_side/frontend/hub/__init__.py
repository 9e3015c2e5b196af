"""Hugging Face model folders: checks a folder, loads the model for a task, and makes example inputs."""
