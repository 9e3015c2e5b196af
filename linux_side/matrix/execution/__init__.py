"""Runs a plan: jobs, child processes, executors and progress."""
