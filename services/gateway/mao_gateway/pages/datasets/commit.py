"""*Commit*: who made a commit of a dataset, from what, what it changes, and what its data checks found."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import Path, Query
from fastapi.responses import HTMLResponse

from mao_gateway.pages.checks import CheckRow, check_rows, decision_words
from mao_gateway.pages.node_api import NodeApi, path_of
from mao_gateway.pages.site import PageDep, page_router
from mao_shared.commit_messages import read_origin, read_step_record
from mao_shared.errors import MaoError, NotFound
from mao_shared.models import Run
from mao_shared.models.check import QuarantinedSnapshot, results_from_record
from mao_shared.models.dataset import CommitInfo, DatasetDiff

from . import commit_view, view

router = page_router()
MAX_FILES = 100
MAX_ROWS = 50  # of the difference of a file


@router.get("/ui/datasets/{name}/commits/{commit}")
async def show_commit(
    page: PageDep,
    name: Annotated[str, Path(max_length=63)],
    commit: Annotated[str, Path(pattern=r"^[0-9a-f]{4,64}$")],
    file: Annotated[str, Query(max_length=4096)] = "",
    after: Annotated[str, Query(max_length=4096)] = "",
) -> HTMLResponse:
    api, at = page.api, path_of("datasets", name)
    listed = await api.listing(f"{at}/log", CommitInfo, branch=commit, limit=1)
    if not listed.items:
        raise NotFound(f"Dataset {name!r} has no commit {commit!r}.", next="See the dataset's commits.")
    info = listed.items[0]
    held, run = await asyncio.gather(_quarantined(api, at, info), _run(api, info))
    before = held.base if held is not None else next(iter(info.parents), None)
    diff, (shown, fault) = await asyncio.gather(
        _changes(api, at, before, info.commit, after), _difference(api, at, before, info.commit, file)
    )
    own = path_of("ui", "datasets", name)
    return await page.render(
        "commit.html",
        section="Datasets",
        title=f"Commit {info.commit[:10]} of {name}",
        name=name,
        own=own,
        itself=f"{own}/commits/{info.commit}",
        at=at,
        info=info,
        held=held,
        before=before,
        tick=read_origin(info.message).tick,
        round=commit_view.round_of(info),
        provenance=commit_view.read_provenance(name, info),
        checks=_checks(info, run),
        decision_words=decision_words,
        files=commit_view.changed_files(diff.files, info)
        if diff
        else commit_view.recorded_files(info, MAX_FILES),
        more=diff.cursor if diff else None,
        file=file,
        shown=shown,
        fault=fault,
        lines=commit_view.message_lines(info.message),
        record=commit_view.record_lines(info.message),
        command=view.command,
        query=view.link,
        line_kind=line_kind,
    )


async def _quarantined(api: NodeApi, at: str, info: CommitInfo) -> QuarantinedSnapshot | None:
    """Return the quarantined snapshot that a commit is, or None."""
    if info.run is None:
        return None
    path = f"{at}/quarantine/{info.commit}"
    return await api.optional(api.get(path, QuarantinedSnapshot))


async def _run(api: NodeApi, info: CommitInfo) -> Run | None:
    """Return the run that made a commit, if this node has it: it has the declarations of the checks."""
    if info.run is None or not results_from_record(read_step_record(info.message)):
        return None
    return await api.optional(api.get(path_of("runs", info.run), Run))


def _checks(info: CommitInfo, run: Run | None) -> list[CheckRow]:
    results = results_from_record(read_step_record(info.message))
    steps = [step for step in run.steps if step.spec.name == info.step] if run else []
    known = {result.name for result in results}
    declared = [check for step in steps for check in step.spec.checks if check.name in known]
    return check_rows(declared, results)


async def _changes(api: NodeApi, at: str, before: str | None, commit: str, after: str) -> DatasetDiff | None:
    """Return the files that a commit changes; None for one without a commit before it."""
    if before is None:
        return None
    query = {"from": before, "to": commit, "limit": MAX_FILES, "cursor": after or None}
    return await api.optional(api.get(f"{at}/diff", DatasetDiff, **query))


async def _difference(
    api: NodeApi, at: str, before: str | None, commit: str, file: str
) -> tuple[DatasetDiff | None, MaoError | None]:
    """Return how a file was changed, or why that is not known."""
    if not file or before is None:
        return None, None
    query = {"from": before, "to": commit, "path": file, "limit": MAX_ROWS}
    try:
        return await api.get(f"{at}/diff", DatasetDiff, **query), None
    except MaoError as error:
        return None, error


def line_kind(line: str) -> str:
    """Return `ins`, `del` or nothing for a line of a unified diff. Pure."""
    return {"+": "ins", "-": "del"}.get(line[:1], "")
