"""A node's backup: taken beside the running node, restored while it is stopped, reconciled from git then.

    archive ◄─ collect ◄─ take ◄─ schedule      the file · what goes into it · one backup · one every day
    archive ─► restore ─► reconcile             put back · what happened after the backup, told from git

docs/decisions/0029-backups.md says in which order things are read, and why.
"""
