"""From a queued run to its end: lifecycle, turns, retention, and the commands on runs."""
