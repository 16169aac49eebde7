"""How several nodes' versions of a dataset become one: pure decisions, usable as a library."""
