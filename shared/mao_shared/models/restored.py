"""Restored: that a node's store came from a backup, and what of the time since is still to be found out."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from .common import Record, Timestamp

RESTORED = "restored"
"""Code of the failure of a run that was under way in the backup: nobody knows how it went on."""


class Restored(Record):
    """Stored under `keys.restored(node)`, with the store's other records.

    `tips`: dataset → the tip of the node's branch when the backup was begun, None where there was none: what
    came after it is looked for. `open`: the datasets of which that is still to be done.
    """

    backup_at: Timestamp
    restored_at: Timestamp
    tips: dict[str, str | None] = Field(default_factory=dict)
    open: list[str] = Field(default_factory=list)


def unknown_since(backup_at: datetime) -> str:
    """Why something is not run by itself after a restore, in words."""
    return (
        f"The node was restored from the backup of {backup_at:%Y-%m-%dT%H:%M:%SZ}, and nobody knows whether "
        "this was run after that"
    )
