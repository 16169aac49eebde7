"""What is done from time to time so that a node stays fast and small. Blocking."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from mao_shared.errors import MaoError
from mao_shared.logs import get_logger

from . import repository, workspaces
from .context import Context

log = get_logger(__name__)


def tidy(context: Context, dataset: str, age: timedelta) -> None:
    """Packs a dataset's clone where that is worth it, and removes its kept folder when no step came for long.

    Nothing else may change the dataset meanwhile. A failure is logged: it costs speed, not data.
    """
    try:
        clone = repository.open_clone(context.data.clone(dataset))
        if repository.needs_packing(clone):
            log.info("clone.packed", dataset=dataset, objects=repository.pack_objects(clone))
        kept = context.data.worktree(dataset)
        if kept.is_dir() and context.clock.now() - datetime.fromtimestamp(kept.stat().st_mtime, UTC) > age:
            workspaces.remove(kept)
            log.info("worktree.expired", dataset=dataset)
    except (MaoError, *repository.TROUBLE) as error:
        log.warning("dataset.not_tidied", dataset=dataset, error=str(error))
