"""Datasets' clones and their remotes: cloning, pushing, repairs, and conflicts that a person resolves."""
