"""Which records are the same: keys, and the alignment of versions by them or by content."""
