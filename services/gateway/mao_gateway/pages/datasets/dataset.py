"""*Datasets*: all of this node; *Dataset*: branches, commits, files, metrics, and a value's history."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Annotated, Generic, TypeVar

from fastapi import Depends, Path, Query
from fastapi.responses import HTMLResponse
from markupsafe import Markup
from starlette.responses import RedirectResponse

from mao_gateway.pages.checks import check_rows, decision_words
from mao_gateway.pages.formats import Clock
from mao_gateway.pages.forms import Message, back_to, carry_out, read_form
from mao_gateway.pages.node_api import NodeApi, path_of
from mao_gateway.pages.site import PageDep, messages, page_router
from mao_shared.errors import MaoError, NotFound
from mao_shared.models import GROUND_TRUTH, Alarm, Dataset, Enrolment, Listing, Series
from mao_shared.models.check import quarantine_branch
from mao_shared.models.common import STORED
from mao_shared.models.dataset import (
    CommitInfo,
    DatasetDiff,
    DatasetStatus,
    FileInfo,
    FilePreview,
)

from . import view
from .histories import MAX_VERSIONS, read_histories
from .quarantine import QuarantinePanel, read_quarantine
from .view import ValueQuestion, WatchedMetric

T = TypeVar("T")
router = page_router()

LISTED = 100  # datasets, files of a page
MAX_COMMITS = 10
MAX_WAITING = 20  # commits that wait, listed
MAX_METRICS = 6
MAX_COMPARED = 12  # branches that are compared with ground truth
MAX_DIFFERING = 50  # files that differ, counted
PREVIEW_ROWS = 20

Name = Annotated[str, Path(max_length=63)]
Text = Annotated[str, Query(max_length=4096)]


@router.get("/ui/datasets")
async def list_datasets(
    page: PageDep, cursor: Annotated[str | None, Query(max_length=200)] = None
) -> HTMLResponse:
    here, registered, enrolled = await asyncio.gather(
        page.api.listing("/datasets", DatasetStatus, limit=LISTED, cursor=cursor),
        page.api.optional(page.api.listing("/registry/datasets", Dataset, limit=1000)),
        page.api.optional(page.api.listing("/enrolments", Enrolment, limit=1000)),
    )
    records = {record.name: record for record in registered.items} if registered else {}
    names = {status.name for status in here.items}
    first = cursor is None
    return await page.render(
        "datasets.html",
        section="Datasets",
        title="Datasets",
        statuses=here.items,
        cursor=here.cursor,
        first=first,
        records=records,
        elsewhere=[record for name, record in sorted(records.items()) if name not in names]
        if first and here.cursor is None
        else [],
        writers=lambda name: view.writers(enrolled.items if enrolled else [], name),
        state_of=view.dataset_state,
        node=page.node,
        truth=GROUND_TRUTH,
    )


@dataclass(frozen=True, slots=True)
class Chosen:
    """What a reader has chosen to see: a branch or commit, a folder, a file, records, commits, a value."""

    ref: str
    path: str
    file: str
    offset: int
    after: str
    before: str
    value: ValueQuestion

    def link(self, **changes: object) -> str:
        """Return the address of the same page with other choices."""
        value = {"value_file": self.value.file, "key": self.value.key, "field": self.value.field}
        kept = {"ref": self.ref, "path": self.path, "file": self.file, **value, "branch": self.value.branch}
        return view.link(**{**kept, **changes})


async def _chosen(
    ref: Annotated[str, Query(max_length=200)] = "",
    path: Text = "",
    file: Text = "",
    offset: Annotated[int, Query(ge=0, le=10_000_000)] = 0,
    after: Text = "",
    before: Annotated[str, Query(max_length=200)] = "",
    value_file: Text = "",
    key: Annotated[str, Query(max_length=10_000)] = "",
    field: Annotated[str, Query(max_length=10_000)] = "",
    branch: Annotated[str, Query(max_length=200)] = "",
) -> Chosen:
    return Chosen(ref, path, file, offset, after, before, ValueQuestion(value_file, key, field, branch))


@dataclass(frozen=True, slots=True)
class Part(Generic[T]):
    """An answer that a panel shows, or the error that it shows in its place."""

    found: T | None = None
    error: MaoError | None = None


async def _part(answer: Awaitable[T]) -> Part[T]:
    try:
        return Part(await answer)
    except MaoError as error:
        return Part(error=error)


@router.get("/ui/datasets/{name}")
async def show_dataset(
    page: PageDep, name: Name, chosen: Annotated[Chosen, Depends(_chosen)]
) -> HTMLResponse:
    api, at = page.api, path_of("datasets", name)
    status, record, enrolled = await asyncio.gather(
        api.optional(api.get(at, DatasetStatus)),
        api.optional(api.get(path_of("registry", "datasets", name), Dataset)),
        api.optional(api.listing("/enrolments", Enrolment, limit=1000)),
    )
    enrolments = enrolled.items if enrolled else []
    if status is None:
        if record is None and not api.problems:
            raise NotFound(f"There is no dataset {name!r}.", next="See the list of datasets.")
        return await page.render(
            "dataset_elsewhere.html", section="Datasets", title=name, name=name, record=record
        )
    ref = chosen.ref or view.default_ref(status.branches, page.node) or ""
    names = [branch.name for branch in status.branches]
    waiting, commits, (files, shown), differing, metrics, (histories, quarantine) = await asyncio.gather(
        _waiting(api, at, page.node, status),
        _part(_commits(api, at, ref, chosen.before)),
        _files(api, at, ref, chosen),
        _differing(api, at, names),
        _metrics(api, view.watched_metrics(enrolments, name)),
        asyncio.gather(
            read_histories(api, name, chosen.value, view.tips(status.branches, chosen.value, page.node)),
            _quarantine(api, status, page.node),
        ),
    )
    alarms = await page.alarms()
    rows = view.history_rows(histories)
    return await page.render(
        "dataset.html",
        section="Datasets",
        title=name,
        name=name,
        record=record,
        at=at,
        own=path_of("ui", "datasets", name),
        data=status,
        state=view.dataset_state(status),
        heading=view.reason_heading(status.outbox),
        writers=view.writers(enrolments, name),
        truth=GROUND_TRUTH,
        chosen=chosen,
        ref=ref,
        waiting=waiting,
        quarantine=quarantine,
        check_rows=check_rows,
        decision_words=decision_words,
        commits=commits,
        differing=differing,
        files=files,
        shown=shown,
        numeric=view.number_columns(shown.found) if shown.found else [],
        keys=view.record_keys(shown.found) if shown.found else None,
        metrics=[_drawn(watched, series, alarms, page.clock) for watched, series in metrics],
        histories=histories,
        rows=rows[: view.SHOWN_VERSIONS],
        moments=len(rows),
        history_plot=view.draw_history(histories, rows, chosen.value.field, page.clock),
        max_versions=MAX_VERSIONS,
        history_command=view.history_command,
        query=view.link,
        text_lines=view.lines_of,
        command=view.command,
    )


async def _quarantine(api: NodeApi, status: DatasetStatus, node: str) -> QuarantinePanel | None:
    """Return what is in quarantine; None if nothing ever was."""
    if all(branch.name != quarantine_branch(node) for branch in status.branches):
        return None
    return await read_quarantine(api, status.name, status.quarantined)


def _drawn(
    watched: WatchedMetric, series: Series, alarms: Sequence[Alarm], clock: Clock
) -> tuple[WatchedMetric, Series, list[view.Outlier], Markup]:
    """Return a control metric with its outliers and its plot."""
    found = view.outliers(series, alarms)
    return watched, series, found, view.draw_metric(series, found, clock)


async def _waiting(api: NodeApi, at: str, node: str, status: DatasetStatus) -> list[view.WaitingCommit]:
    """Return the newest commits of this node's branch that wait to be pushed."""
    count = min(status.outbox.waiting, MAX_WAITING)
    if not count:
        return []
    found = await api.optional(api.listing(f"{at}/log", CommitInfo, branch=node, limit=count))
    return view.waiting_commits(found.items if found else [])


async def _commits(api: NodeApi, at: str, ref: str, before: str) -> Listing[CommitInfo]:
    if not ref:
        return Listing(items=[])
    return await api.listing(f"{at}/log", CommitInfo, branch=ref, limit=MAX_COMMITS, cursor=before or None)


async def _files(
    api: NodeApi, at: str, ref: str, chosen: Chosen
) -> tuple[Part[Listing[FileInfo]], Part[FilePreview]]:
    """Return a folder, and the beginning of the chosen file, or of one that is worth a look."""
    if not ref:
        return Part(), Part()
    listing = api.listing(
        f"{at}/files",
        FileInfo,
        ref=ref,
        path=chosen.path,
        details="true",
        limit=LISTED,
        cursor=chosen.after or None,
    )
    files = await _part(listing)
    path = chosen.file or chosen.value.file or view.default_file(files.found.items if files.found else [])
    if not path:
        return files, Part()
    preview = api.get(
        f"{at}/preview", FilePreview, ref=ref, path=path, offset=chosen.offset, limit=PREVIEW_ROWS
    )
    return files, await _part(preview)


async def _differing(api: NodeApi, at: str, branches: Sequence[str]) -> dict[str, DatasetDiff]:
    """Return for each branch the files that differ from ground truth."""
    if GROUND_TRUTH not in branches:
        return {}
    compared = [name for name in branches if name != GROUND_TRUTH][:MAX_COMPARED]
    query = {"from": GROUND_TRUTH, "limit": MAX_DIFFERING}
    found = await asyncio.gather(
        *(api.optional(api.get(f"{at}/diff", DatasetDiff, to=name, **query)) for name in compared)
    )
    return {name: diff for name, diff in zip(compared, found, strict=True) if diff is not None}


async def _metrics(api: NodeApi, watched: Sequence[WatchedMetric]) -> list[tuple[WatchedMetric, Series]]:
    """Return the series of control metrics that have points."""
    some = watched[:MAX_METRICS]
    paths = [path_of("series", metric.pipeline, metric.step, metric.metric.name) for metric in some]
    found = await asyncio.gather(*(api.optional(api.get(path, Series)) for path in paths))
    return [(metric, series) for metric, series in zip(some, found, strict=True) if series and series.points]


# what can be done


@router.post("/ui/datasets/{name}/push")
async def push(page: PageDep, name: Name) -> RedirectResponse:
    try:
        answer = await page.api.send("POST", path_of("datasets", name, "push"))
        outbox = DatasetStatus.model_validate(answer, context=STORED).outbox
    except MaoError as error:
        message = Message(False, error.detail, error.next)
    else:
        message = Message(True, "All commits are at the remote.")
        if outbox.state != "in-sync":
            message = Message(False, outbox.detail or view.reason_heading(outbox), outbox.next)
    return back_to(path_of("ui", "datasets", name), messages.keep(message))


@router.post("/ui/datasets/{name}/resolve")
async def resolve(page: PageDep, name: Name) -> RedirectResponse:
    form = await read_form(page.request)
    here = path_of("ui", "datasets", name)
    call = page.api.send("POST", path_of("datasets", name, "resolve"), {"how": form.get("how", "")})
    return await carry_out(messages, call, done="The branches are reconciled.", then=here, otherwise=here)


@router.post("/ui/datasets/{name}/acknowledge")
async def acknowledge(page: PageDep, name: Name) -> RedirectResponse:
    here = path_of("ui", "datasets", name)
    call = page.api.send("POST", path_of("datasets", name, "acknowledge"))
    return await carry_out(messages, call, done="Acknowledged.", then=here, otherwise=here)
