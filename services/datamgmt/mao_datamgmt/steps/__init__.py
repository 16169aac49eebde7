"""Preparing, publishing and reproducing steps, and the queue of steps for a dataset."""
