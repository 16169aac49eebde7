"""The gateway: the one public address of a node."""
