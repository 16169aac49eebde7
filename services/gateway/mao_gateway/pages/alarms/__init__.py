"""The page of alarms, channels and rules."""
