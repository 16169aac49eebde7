"""What is done from time to time so that a node stays fast and small. Blocking."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from mao_git import Clone, RepositoryError
from mao_shared.errors import MaoError
from mao_shared.logs import get_logger

from .context import Context
from .steps import workspaces

log = get_logger(__name__)


def tidy(context: Context, dataset: str, age: timedelta) -> None:
    """Packs a dataset's clone where that is worth it, and removes its kept folder when no step came for long.

    Nothing else may change the dataset meanwhile. A failure is logged: it costs speed, not data.
    """
    try:
        clone = Clone.open(context.data.clone(dataset))
        if clone.needs_packing():
            log.info("clone.packed", dataset=dataset, objects=clone.pack())
        kept = context.data.worktree(dataset)
        if kept.is_dir() and context.clock.now() - datetime.fromtimestamp(kept.stat().st_mtime, UTC) > age:
            workspaces.remove_tree(kept)
            log.info("worktree.expired", dataset=dataset)
    except (MaoError, RepositoryError, OSError) as error:
        log.warning("dataset.not_tidied", dataset=dataset, error=str(error))
