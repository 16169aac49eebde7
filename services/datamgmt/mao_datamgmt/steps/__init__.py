"""A step's folders and commits: prepared, published, reproduced; and which step has a dataset next."""
