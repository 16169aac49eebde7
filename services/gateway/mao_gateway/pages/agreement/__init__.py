"""Pages of how nodes agree: rounds, one round, one contested cell."""
