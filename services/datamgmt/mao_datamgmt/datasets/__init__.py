"""A dataset's clone and its remote: cloned, followed, pushed, repaired, resolved by a person."""
