"""The gateway: the single public address of a node."""
