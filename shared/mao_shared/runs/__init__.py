"""The run records of a node, and lists of them."""
