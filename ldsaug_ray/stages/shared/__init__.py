"""What stages have in common: the job, units of work, the runner, checkpoints, and workers that several use."""
