"""What every service is composed of."""
