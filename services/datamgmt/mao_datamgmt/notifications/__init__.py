"""Tells people about alarms: who and when (decide), the messages (notifier), their delivery (channels)."""
