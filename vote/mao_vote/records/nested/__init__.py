"""Objects and lists inside of records and documents: paths, identity of entries, writing."""
