"""Broken clones: found, and what only they had put on top of a new one."""
