"""Data from programs outside: taken in durably, committed in batches; and what tools say to them."""
