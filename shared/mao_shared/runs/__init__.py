"""Run records of a node, and listings of them."""
