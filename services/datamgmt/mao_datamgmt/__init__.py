"""The data manager: a node's git datasets, from a step's input to its pushed commit and ground truth."""
