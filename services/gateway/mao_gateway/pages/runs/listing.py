"""*Runs*: the runs of this node, newest first, with filters in the address."""

from __future__ import annotations

import asyncio
import re
import shlex
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from fastapi import Query
from fastapi.responses import HTMLResponse

from mao_gateway.pages.formats import Clock
from mao_gateway.pages.site import Page, PageDep, page_router
from mao_shared.errors import InvalidInput, MaoError
from mao_shared.models import Enrolment, Listing, Run, format_time
from mao_shared.models.common import FIRST_YEAR, LAST_YEAR
from mao_shared.states import RunPhase

from .view import TRIGGERS, make_row

router = page_router()
PER_PAGE = 50
MAX_SUGGESTED = 200  # pipelines
_AGE = re.compile(r"(\d{1,5})\s*(min|m|h|d)")
_AGE_UNITS = {"min": "minutes", "m": "minutes", "h": "hours", "d": "days"}
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


@dataclass(frozen=True, slots=True)
class RunsFilter:
    """The filters as they are in the address; empty ones match any run."""

    pipeline: str = ""
    phase: str = ""
    trigger: str = ""
    since: str = ""
    until: str = ""

    def pairs(self) -> list[tuple[str, str]]:
        """Return the filters that are set, for addresses."""
        fields = ("pipeline", "phase", "trigger", "since", "until")
        return [(name, value) for name in fields if (value := getattr(self, name))]

    def query(self, clock: Clock) -> dict[str, Any]:
        """Return the query of the API. Raises InvalidInput for a time that cannot be read."""
        since, until = read_time(self.since, clock), read_time(self.until, clock, end_of_day=True)
        times = {"since": since and format_time(since), "until": until and format_time(until)}
        return {
            "pipeline": self.pipeline or None,
            "phase": self.phase or None,
            "trigger": self.trigger or None,
        } | times

    def options(self, clock: Clock) -> str:
        """Return the options of `maoctl run list` for these filters."""
        try:
            query = self.query(clock)
        except InvalidInput:
            return ""
        ages = {
            name: getattr(self, name) for name in ("since", "until") if _AGE.fullmatch(getattr(self, name))
        }
        found = {name: value for name, value in {**query, **ages}.items() if value}
        return "".join(f" --{name} {shlex.quote(value)}" for name, value in found.items())


def read_time(text: str, clock: Clock, *, end_of_day: bool = False) -> datetime | None:
    """Read a time of the page's zone, a day, or an age such as `24h`; None for an empty text.

    `end_of_day`: a day means its last second. Raises InvalidInput (`time-invalid`).
    """
    text = text.strip()
    if not text:
        return None
    if age := _AGE.fullmatch(text):
        return clock.now - timedelta(**{_AGE_UNITS[age[2]]: int(age[1])})
    found = _parse(text, clock)
    if found is None:
        raise InvalidInput(
            f"{text!r} is not a time.",
            code="time-invalid",
            next="Write a day (2026-01-31), a time (2026-01-31 14:30) or an age (24h, 7d).",
        )
    is_day = end_of_day and _DAY.fullmatch(text) is not None
    return (found + timedelta(days=1, seconds=-1) if is_day else found).astimezone(UTC)


def _parse(text: str, clock: Clock) -> datetime | None:
    """Read a time in ISO form, without a zone one of the page's; None if it is none, or not of our age."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    if not FIRST_YEAR < found.year < LAST_YEAR:
        return None
    return found if found.tzinfo else found.replace(tzinfo=clock.zone)


def _one_of(text: str, known: tuple[str, ...]) -> str:
    return text if text in known else ""


PHASES = tuple(str(phase) for phase in RunPhase)
Text = Annotated[str, Query(max_length=200)]


@router.get("/ui/runs")
async def list_runs(
    page: PageDep,
    pipeline: Text = "",
    phase: Text = "",
    trigger: Text = "",
    since: Text = "",
    until: Text = "",
    cursor: Annotated[str | None, Query(max_length=1000)] = None,
) -> HTMLResponse:
    wanted = RunsFilter(pipeline, _one_of(phase, PHASES), _one_of(trigger, TRIGGERS), since, until)
    (found, error), enrolments = await asyncio.gather(
        _read_runs(page, wanted, cursor),
        page.api.optional(page.api.listing("/enrolments", Enrolment, limit=MAX_SUGGESTED)),
    )
    return await page.render(
        "runs.html",
        section="Runs",
        title="Runs",
        wanted=wanted,
        error=error,
        rows=[make_row(run, page.clock.now) for run in found.items],
        unreadable=found.unreadable,
        cursor=found.cursor,
        first=cursor is None,
        phases=PHASES,
        triggers=TRIGGERS,
        command=wanted.options(page.clock),
        pipelines=[each.pipeline for each in enrolments.items] if enrolments else [],
    )


async def _read_runs(
    page: Page, wanted: RunsFilter, cursor: str | None
) -> tuple[Listing[Run], MaoError | None]:
    """Return a page of runs, or what is wrong with the filters."""
    try:
        query = wanted.query(page.clock)
        return await page.api.listing("/runs", Run, limit=PER_PAGE, cursor=cursor, **query), None
    except MaoError as error:
        return Listing[Run](items=[]), error
