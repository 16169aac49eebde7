"""Exchange with external programs: their values, committed in batches, and the insights of tools."""
