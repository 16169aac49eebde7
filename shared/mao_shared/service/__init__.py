"""The common skeleton of all services."""
