"""The other side of a clone: opened, fetched from, pushed to; and what its refusals mean."""
