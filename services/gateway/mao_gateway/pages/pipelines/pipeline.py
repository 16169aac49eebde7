"""*Pipeline*: definition, steps, pending change, schedules, last runs and other nodes of one pipeline."""

from __future__ import annotations

import asyncio
import shlex
from dataclasses import dataclass
from datetime import datetime

from fastapi.responses import HTMLResponse

from mao_gateway.pages.formats import Clock, node_zone
from mao_gateway.pages.node_api import NodeApi, path_of
from mao_gateway.pages.site import Page, PageDep, page_router
from mao_shared.errors import MaoError
from mao_shared.models import (
    BackfillResult,
    Enrolment,
    Job,
    Listing,
    NextTimes,
    NodeRuns,
    Pipeline,
    PipelineDiff,
    Run,
    Tool,
    format_time,
)
from mao_shared.states import RUN_ENDED
from mao_shared.web.dependencies import TITLE

from . import view
from .listing import soonest_first
from .run_bars import MAX_RUNS, History, draw_history, make_history
from .schedules import (
    MAX_TICKS_SHOWN,
    BackfillForm,
    FormError,
    ScheduleForm,
    ScheduleView,
    backfill_command,
    coming_ticks,
    job_view,
    parse_moment,
    schedule_commands,
    time_in,
    zone_named,
)

router = page_router()
MAX_JOBS = 1000
MAX_SHOWN_JOBS = 10  # schedules whose next times are shown
COUNT = 10  # next times
MAX_CALLS = 4  # for the last runs; pages of a filtered list may be short


@dataclass(frozen=True, slots=True)
class Typed:
    """What was typed into the forms, from the address. `form`: the one that was sent."""

    form: str = ""
    job: str = ""
    cron: str | None = None
    timezone: str = ""
    seconds: bool = False
    since: str | None = None
    until: str = ""


@dataclass(frozen=True, slots=True)
class PipelineFacts:
    """What the API says about one pipeline. None: not known, or not there."""

    pipeline: Pipeline
    enrolment: Enrolment | None
    diff: PipelineDiff | None
    diff_error: FormError | None
    jobs: list[Job] | None
    runs: list[Run] | None
    nodes: list[NodeRuns] | None

    @property
    def active(self) -> list[Run]:
        """Return the runs that have not ended."""
        return [run for run in self.runs or () if run.phase not in RUN_ENDED]

    @property
    def last(self) -> Run | None:
        """Return the newest run that collected something."""
        return next((run for run in self.runs or () if run.trigger != "reproduce"), None)

    @property
    def run_hindrance(self) -> str | None:
        """Return why the pipeline cannot be run or scheduled now."""
        return None if self.enrolment else "This node is not enrolled in the pipeline."

    @property
    def withdraw_hindrance(self) -> str | None:
        """Return why this node cannot withdraw now."""
        if self.jobs:
            return "A schedule needs the enrolment: delete its schedules first."
        return "A run is active: wait for it, or cancel it." if self.active else None


async def read_facts(api: NodeApi, name: str) -> PipelineFacts:
    """Return what the API says about a pipeline, by name or title. Raises NotFound."""
    pipeline = await api.get(f"/registry/pipelines{path_of(name)}", Pipeline)
    own = path_of(pipeline.name)
    enrolment, diff, jobs, runs, nodes = await asyncio.gather(
        api.optional(api.get(f"/enrolments{own}", Enrolment)),
        _read_diff(api, own),
        api.optional(api.listing("/jobs", Job, pipeline=pipeline.name, limit=MAX_JOBS)),
        api.optional(_last_runs(api, pipeline.name)),
        api.optional(api.listing("/federation/runs", NodeRuns, pipeline=pipeline.name)),
    )
    return PipelineFacts(
        pipeline=pipeline,
        enrolment=enrolment,
        diff=diff if isinstance(diff, PipelineDiff) else None,
        diff_error=None if isinstance(diff, PipelineDiff) else FormError.of(diff),
        jobs=None if jobs is None else sorted(jobs.items, key=soonest_first),
        runs=runs,
        nodes=None if nodes is None else nodes.items,
    )


async def _read_diff(api: NodeApi, own: str) -> PipelineDiff | MaoError:
    """Return the difference, or the error (such as a missing tool) that keeps this node from enrolling."""
    try:
        return await api.get(f"/pipeline{own}/diff", PipelineDiff)
    except MaoError as error:
        return error


async def _last_runs(api: NodeApi, name: str) -> list[Run]:
    runs: list[Run] = []
    cursor: str | None = None
    for _ in range(MAX_CALLS):
        page: Listing[Run] = await api.listing("/runs", Run, pipeline=name, limit=MAX_RUNS, cursor=cursor)
        runs += page.items
        cursor = page.cursor
        if cursor is None or len(runs) >= MAX_RUNS:
            break
    return runs


async def read_tools(api: NodeApi, facts: PipelineFacts) -> dict[str, Tool]:
    """Return the tools of a pipeline that this node is not enrolled in: an enrolment has a copy of them."""
    if facts.enrolment is not None:
        return {}
    names = sorted({step.tool for step in facts.pipeline.steps})
    found = await asyncio.gather(
        *(api.optional(api.get(f"/registry/tools{path_of(name)}", Tool)) for name in names)
    )
    return {tool.name: tool for tool in found if tool is not None}


async def read_schedules(api: NodeApi, jobs: list[Job], now: datetime) -> list[ScheduleView]:
    """Return the schedules with their next times."""

    async def times(job: Job) -> list[datetime]:
        path = f"/jobs{path_of(job.id)}/next"
        found = await api.optional(api.get(path, NextTimes, count=COUNT))
        return found.times if found else []

    shown = jobs[:MAX_SHOWN_JOBS]
    coming = await asyncio.gather(*(times(job) for job in shown))
    return [job_view(job, moments, now) for job, moments in zip(shown, coming, strict=True)]


async def schedule_form(page: Page, facts: PipelineFacts, typed: Typed) -> ScheduleForm:
    """Return the form of a schedule: with what was typed, and its next times or the error."""
    jobs = facts.jobs or []
    job = next((job for job in jobs if typed.form == "schedule" and job.id == typed.job), None)
    if typed.form != "schedule" or typed.cron is None:
        if job is not None:
            return ScheduleForm(job.cron, job.timezone, job.seconds, job)
        return ScheduleForm(timezone=node_zone().key)
    cron, timezone = typed.cron.strip(), typed.timezone.strip() or "UTC"
    body = {"cron": cron, "timezone": timezone, "seconds": typed.seconds, "count": COUNT}
    try:
        found = NextTimes.model_validate(await page.api.send("POST", "/cron/preview", body))
    except MaoError as error:
        return ScheduleForm(cron, timezone, typed.seconds, job, error=FormError.of(error))
    return ScheduleForm(
        cron,
        timezone,
        typed.seconds,
        job,
        coming_ticks(found.times, timezone, page.clock.now),
        commands=tuple(schedule_commands(facts.pipeline.name, cron, timezone, typed.seconds, job)),
    )


async def backfill_form(page: Page, facts: PipelineFacts, typed: Typed) -> BackfillForm:
    """Return the form of a backfill: with what was typed, and which ticks would run or the error."""
    jobs = facts.jobs or []
    first = jobs[0].id if jobs else ""
    if typed.form != "backfill" or typed.since is None:
        return BackfillForm(job=typed.job if typed.form == "backfill" and typed.job else first, since="7d")
    clock, job = page.clock, typed.job or first
    try:
        begin = parse_moment(typed.since, clock, "From")
        end = parse_moment(typed.until, clock, "Until") if typed.until.strip() else clock.now
        begin, end = begin.replace(microsecond=0), end.replace(microsecond=0)
        body = {"since": format_time(begin), "until": format_time(end), "dry_run": True}
        answer = await page.api.send("POST", f"/jobs{path_of(job)}/backfill", body)
        result = BackfillResult.model_validate(answer)
    except MaoError as error:
        return BackfillForm(job, typed.since, typed.until, error=FormError.of(error))
    return BackfillForm(
        job, typed.since, typed.until, begin, end, result, command=backfill_command(job, begin, end)
    )


@router.get(f"/ui/pipelines/{{name:{TITLE}}}")
async def pipeline(
    page: PageDep,
    name: str,
    form: str = "",
    job: str = "",
    cron: str | None = None,
    timezone: str = "",
    seconds: bool = False,
    since: str | None = None,
    until: str = "",
) -> HTMLResponse:
    typed = Typed(form, job, cron, timezone, seconds, since, until)
    facts = await read_facts(page.api, name)
    tools, schedules, to_schedule, to_backfill = await asyncio.gather(
        read_tools(page.api, facts),
        read_schedules(page.api, facts.jobs or [], page.clock.now),
        schedule_form(page, facts, typed),
        backfill_form(page, facts, typed),
    )
    found = facts.pipeline
    yaml, json = view.definition_texts(found)
    history: History | None = make_history(facts.runs, page.clock) if facts.runs else None
    diff, diff_left = view.diff_lines(facts.diff.diff if facts.diff else "")
    zones = {known.timezone for known in facts.jobs or ()}
    return await page.render(
        "pipeline.html",
        section="Pipelines",
        title=found.called,
        facts=facts,
        pipeline=found,
        base=path_of("ui", "pipelines", found.name),
        quoted=shlex.quote(found.name),
        schedules=schedules,
        more_jobs=max(0, len(facts.jobs or ()) - MAX_SHOWN_JOBS),
        schedule=to_schedule,
        backfill=to_backfill,
        backfill_ticks=_backfill_ticks(to_backfill, facts.jobs or [], page.clock),
        zone_names=sorted({"UTC", node_zone().key, *zones}),
        chains=view.chains(found.steps),
        steps=view.step_rows(found, facts.enrolment, tools),
        yaml=yaml,
        json=json,
        history=history,
        plot=draw_history(history) if history else None,
        changes=view.read_changes(facts.diff.pending if facts.diff else ()),
        diff_lines=diff,
        diff_left=diff_left,
        privileges=view.privileges(facts.diff),
        agree_options=view.agree_options(facts.diff.agree if facts.diff else ()),
        others=view.other_nodes(facts.nodes or (), page.node),
    )


def _backfill_ticks(form: BackfillForm, jobs: list[Job], clock: Clock) -> list[dict[str, object]]:
    """Return the ticks to list: on the clock of the schedule's zone, and why each has not been run."""
    job = next((job for job in jobs if job.id == form.job), None)
    if form.result is None or job is None:
        return []
    zone = zone_named(job.timezone)
    return [
        {
            "time": time_in(tick.scheduled_for, zone, clock.now),
            "missed": tick.missed,
            "reason": tick.reason
            or tick.missed
            or (
                "the schedule did not exist then"
                if tick.scheduled_for < job.created_at
                else "nothing is known of it"
            ),
        }
        for tick in form.result.ticks[:MAX_TICKS_SHOWN]
    ]
