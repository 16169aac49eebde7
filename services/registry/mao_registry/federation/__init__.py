"""Membership of a federation: creating, inviting, joining, leaving, and the nodes that run its etcd.

Every command is idempotent: only its last step makes it take effect, and a command that was interrupted is
completed by repeating it.
"""
