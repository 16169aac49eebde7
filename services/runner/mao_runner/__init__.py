"""The runner: runs the steps of runs as containers, and keeps their logs."""
