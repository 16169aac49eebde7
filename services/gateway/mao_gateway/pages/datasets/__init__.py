"""Pages of datasets: the list, and one dataset with its branches, files and history."""
