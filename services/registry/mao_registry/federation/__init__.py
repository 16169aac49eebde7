"""Membership of a federation: creating, inviting, joining, leaving, and which nodes run its etcd.

Every command is idempotent: its steps may be repeated, the last one makes it true for all nodes, and a
command that was killed is completed by repeating it.
"""
