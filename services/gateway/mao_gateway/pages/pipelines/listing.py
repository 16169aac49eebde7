"""*Pipelines*: the registered pipelines, whether this node is enrolled, schedules and last runs; search."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal

from fastapi import Query
from fastapi.responses import HTMLResponse

from mao_gateway.pages.node_api import path_of
from mao_gateway.pages.site import Page, PageDep, page_router
from mao_shared.models import Job, Listing, PipelineState, Run
from mao_shared.models.run import time_in_id

router = page_router()
Show = Literal["all", "enrolled", "other", "pending", "paused"]
SHOWN: Mapping[Show, str] = {
    "all": "all pipelines",
    "enrolled": "enrolled here",
    "other": "not enrolled here",
    "pending": "with a pending change",
    "paused": "with a paused schedule",
}
PAGE = 100  # pipelines of a page without a filter
SEARCHED = 1000  # pipelines that are searched at once
MAX_FOUND = 200  # rows of a search
RECENT_RUNS = 200  # runs in which the last one of a pipeline is looked for
MAX_JOBS = 1000
MAX_SCHEDULES = 3  # named in a row


@dataclass(frozen=True, slots=True)
class LastRun:
    """The newest run of a pipeline that is known; `at`: when it ended, else its tick or request."""

    id: str
    phase: str
    at: datetime | None


@dataclass(frozen=True, slots=True)
class PipelineRow:
    """A pipeline as the list shows it. `schedules`: cron string with zone, and whether it is paused."""

    name: str
    called: str
    description: str
    enrolled: bool
    pending: tuple[str, ...]
    schedules: tuple[tuple[str, bool], ...]
    next: datetime | None
    last: LastRun | None
    datasets: tuple[str, ...]

    @property
    def href(self) -> str:
        return path_of("ui", "pipelines", self.name)

    @property
    def paused(self) -> bool:
        return any(paused for _, paused in self.schedules)


def last_runs(runs: Iterable[Run], jobs: Iterable[Job]) -> dict[str, LastRun]:
    """Return the newest known run of each pipeline. `runs`: newest first; jobs know their last tick."""
    found: dict[str, LastRun] = {}
    for run in runs:
        if run.trigger != "reproduce":
            at = run.finished_at or run.scheduled_for or run.created_at
            found.setdefault(run.pipeline, LastRun(run.id, run.phase, at))
    for job in jobs:
        if job.last is None:
            continue
        known = found.get(job.pipeline)
        known_at = time_in_id(known.id) if known else None
        if known_at is None or known_at < job.last.scheduled_for:
            found[job.pipeline] = LastRun(job.last.run, job.last.phase, job.last.scheduled_for)
    return found


def pipeline_rows(
    states: Sequence[PipelineState], jobs: Sequence[Job], runs: Sequence[Run]
) -> list[PipelineRow]:
    """Return the rows of pipelines, in the order of `states`."""
    last = last_runs(runs, jobs)
    by_pipeline: dict[str, list[Job]] = {}
    for job in sorted(jobs, key=soonest_first):
        by_pipeline.setdefault(job.pipeline, []).append(job)
    return [_row(state, by_pipeline.get(state.name, []), last.get(state.name)) for state in states]


def soonest_first(job: Job) -> tuple[bool, datetime, str]:
    """Return what schedules are sorted by: those that are due next first, paused ones last."""
    return job.next is None, job.next or job.created_at, job.id


def _row(state: PipelineState, jobs: Sequence[Job], last: LastRun | None) -> PipelineRow:
    return PipelineRow(
        name=state.name,
        called=state.called,
        description=state.description,
        enrolled=state.enrolled,
        pending=tuple(state.pending),
        schedules=tuple((f"{job.cron} {job.timezone}", job.paused) for job in jobs),
        next=min((job.next for job in jobs if job.next is not None), default=None),
        last=last,
        datasets=tuple(dict.fromkeys(step.dataset for step in state.steps)),
    )


def matches(state: PipelineState, text: str) -> bool:
    """Return True if every word of a search occurs in the pipeline's texts, its tools or datasets."""
    parts = [state.name, state.title or "", state.description]
    for step in state.steps:
        parts += [step.name, step.title or "", step.tool, step.dataset, step.input_dataset or ""]
    searched = "\n".join(parts).casefold()
    return all(word in searched for word in text.casefold().split())


def is_shown(row: PipelineRow, show: Show) -> bool:
    """Return True if a row belongs to the filter."""
    match show:
        case "enrolled":
            return row.enrolled
        case "other":
            return not row.enrolled
        case "pending":
            return bool(row.pending)
        case "paused":
            return row.paused
        case _:
            return True


async def _states(page: Page, filtered: bool, cursor: str | None) -> Listing[PipelineState]:
    limit = SEARCHED if filtered else PAGE
    return await page.api.listing("/pipeline", PipelineState, limit=limit, cursor=cursor)


@router.get("/ui/pipelines")
async def pipelines(
    page: PageDep,
    q: Annotated[str, Query(max_length=200)] = "",
    show: Show = "all",
    cursor: Annotated[str | None, Query(max_length=1000)] = None,
) -> HTMLResponse:
    q = q.strip()
    filtered = bool(q) or show != "all"
    listing, jobs, runs = await asyncio.gather(
        _states(page, filtered, cursor),
        page.api.optional(page.api.listing("/jobs", Job, limit=MAX_JOBS)),
        page.api.optional(page.api.listing("/runs", Run, limit=RECENT_RUNS)),
    )
    states = [state for state in listing.items if matches(state, q)]
    found = pipeline_rows(states, jobs.items if jobs else [], runs.items if runs else [])
    rows = [row for row in found if is_shown(row, show)]
    return await page.render(
        "pipelines.html",
        section="Pipelines",
        title="Pipelines",
        rows=rows[:MAX_FOUND],
        more=max(0, len(rows) - MAX_FOUND),
        unreadable=listing.unreadable,
        cursor=listing.cursor,
        first=cursor is None,
        query=[pair for pair in (("q", q), ("show", show if show != "all" else "")) if pair[1]],
        q=q,
        show=show,
        shown=SHOWN,
        filtered=filtered,
        jobs_known=jobs is not None,
        runs_known=runs is not None,
        all_runs_seen=runs is not None and runs.cursor is None,
        max_schedules=MAX_SCHEDULES,
        recent=RECENT_RUNS,
    )
