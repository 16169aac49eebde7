"""Which records are the same and which are in the result: keys, alignment, presence."""
