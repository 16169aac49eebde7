"""The command-line client of a node; it talks to the gateway only."""
