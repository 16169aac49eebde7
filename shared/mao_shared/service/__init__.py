"""Common skeleton of all services."""
