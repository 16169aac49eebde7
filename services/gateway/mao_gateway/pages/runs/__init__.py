"""Pages of runs: the list, and one run with its timeline, log and outputs."""
