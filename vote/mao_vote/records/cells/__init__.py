"""The vote: which records are in the result, and the value of each cell."""
