"""The command-line client of a node; it only calls the gateway."""
