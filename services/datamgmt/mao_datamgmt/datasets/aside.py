"""Putting a clone away that is left over from a dataset removed or moved, so that its name is free. Blocking.

Nothing is deleted: the clone, with all branches and what was never pushed, goes to a dated name beside the
others, and so does the folder that was kept for the next step.
"""

from __future__ import annotations

from pydantic import BaseModel

import mao_git
from mao_datamgmt.context import Context
from mao_shared.mao_shared_logs import get_logger

log = get_logger(__name__)


class SetAside(BaseModel):
    """Where a clone is now. `unpushed`: commits of this node's branch that its remote did not have."""

    name: str
    path: str
    remote: str
    unpushed: int


def remote_of(context: Context, name: str) -> str:
    """The remote of the clone that is here. Raises NotFound."""
    return mao_git.open_clone(context.data.clone(name)).url


def set_aside(context: Context, name: str) -> SetAside:
    """Renames the clone, last, so that a kill in between leaves it where it was. Raises NotFound."""
    path = context.data.clone(name)
    clone = mao_git.open_clone(path)
    unpushed, _ = mao_git.waiting(clone, context.node)
    folder = context.data.aside(name, context.clock.now())
    folder.mkdir(parents=True, mode=0o700)
    kept = context.data.worktree(name)
    if kept.exists():
        kept.rename(folder / "worktree")
    target = path.rename(folder / path.name)
    log.info("clone.set_aside", dataset=name, path=str(target), unpushed=unpushed)
    return SetAside(name=name, path=str(target), remote=clone.url, unpushed=unpushed)
