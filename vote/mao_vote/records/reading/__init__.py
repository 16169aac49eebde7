"""Record files read as tables of texts."""
