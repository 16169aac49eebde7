"""A node's backup: taken beside the running node, restored while it is stopped, then reconciled with git.

    archive ◄─ collect ◄─ take ◄─ schedule    the file · what goes into it · one backup · one every day
    archive ─► restore ─► reconcile ─► runs   put back · what the datasets say happened since · which runs

docs/decisions/0029-backups.md says in which order things are read, and why.
"""
