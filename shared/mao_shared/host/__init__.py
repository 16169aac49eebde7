"""This machine: the data directory, private files, sockets and local users."""
