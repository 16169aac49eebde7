"""Data checks: what is expected of a step's output is checked before it is published.

`runner` runs a child process, `rules` decides each kind of check there, `schemas` validates JSON.
"""
