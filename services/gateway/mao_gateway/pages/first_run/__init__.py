"""The first run of a node, and the catalogue."""
