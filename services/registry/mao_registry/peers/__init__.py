"""Other nodes: their presence, runs and logs, and what this node publishes for them."""
