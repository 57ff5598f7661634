"""The pages of runs while they go on, served to this machine: a list of all runs, and each run."""
