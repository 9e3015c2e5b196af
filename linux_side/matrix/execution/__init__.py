"""Running a plan: jobs, processes, executors and progress."""
