"""Benchmarks of `make bench`: speed, memory and accuracy, compared with other programs."""
