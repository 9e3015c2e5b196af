"""A build from request to file: the child process, its pipeline, and the artifact writer."""
