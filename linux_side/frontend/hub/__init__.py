"""Hugging Face model folders: what is in one, which class makes a task's model of it, and an example of its inputs."""
