"""The HTTP side of the scheduler: thin, one file a noun."""
