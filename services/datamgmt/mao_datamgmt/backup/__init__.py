"""A node's backup: taken while the node runs, restored while it is stopped, then reconciled with git.

    archive ◄─ collect ◄─ take ◄─ schedule    the file · its content · one backup · periodic backups
    archive ─► restore ─► reconcile ─► runs   put back · look up what happened since · rebuild the runs

docs/decisions/0029-backups.md explains in which order a backup is read.
"""
