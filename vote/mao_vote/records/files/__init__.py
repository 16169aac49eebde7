"""Record files as bytes: read as tables of texts, and written with the bytes of the nodes."""
