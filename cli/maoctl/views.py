"""The tables: one view a noun."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from mao_shared.json_text import unmarked

from .output import Cell, Column, Record, TableView, field
from .text import harmless_line, plain, relative, size, took

SHORT_COMMIT = 10


def _age(path: str) -> Cell:
    return lambda record, now: relative(record.get(path), now)


def _names_of(path: str, key: str) -> Cell:
    return lambda record, _: ", ".join(str(item.get(key, "")) for item in record.get(path) or [])


def _commit(value: Any) -> str:
    return str(value)[:SHORT_COMMIT] if value else ""


def _steps_done(run: Record, _now: datetime) -> str:
    steps = run.get("steps") or []
    return f"{sum(step.get('phase') in ('succeeded', 'skipped') for step in steps)}/{len(steps)}"


_VOTED = re.compile(r"ground-truth is for (\d+) nodes to agree on, it is not moved by one")


def _one_line(text: Any) -> str:
    return " | ".join(line.strip() for line in str(text).splitlines() if line.strip()).replace(": | ", ": ")


def _error(run: Record) -> Record:
    """The run's error, or that of a step that is being tried again."""
    of_steps = (step.get("error") for step in run.get("steps") or [])
    return run.get("error") or next((error for error in of_steps if error), {})


def _why(run: Record, _now: datetime) -> str:
    error = _error(run)
    waiting = [step["waiting"] for step in run.get("steps") or [] if step.get("waiting")]
    why = error.get("detail") or run.get("reason") or next(iter(waiting), "")
    return _one_line(_voted(why) if run.get("phase") == "succeeded" else why)


def _voted(why: str) -> str:
    """Of what succeeded: that several nodes decide its ground truth is no fault."""
    return _VOTED.sub(r"for \1 nodes to vote", why)


def _run_took(run: Record, now: datetime) -> str:
    return took(run.get("started_at"), run.get("finished_at"), now)


def _step_took(step: Record, now: datetime) -> str:
    times = step.get("times") or {}
    begun = [times[phase] for phase in ("preparing", "ready", "starting", "running") if phase in times]
    ends = [times[phase] for phase in ("succeeded", "failed", "cancelled", "lost") if phase in times]
    return took(next(iter(begun), None), next(iter(ends), None), now)


def _step_note(step: Record, _now: datetime) -> str:
    error = step.get("error") or {}
    not_pushed = "not pushed yet" if step.get("snapshot") and not step.get("pushed") else ""
    why = error.get("detail") or step.get("waiting") or not_pushed
    return _one_line(_voted(why) if step.get("phase") == "succeeded" else why)


def _exit(step: Record, _now: datetime) -> str:
    end = step.get("exit") or {}
    word = "out of memory" if end.get("oom") else "timed out" if end.get("timed_out") else ""
    return " ".join(filter(None, (str(end.get("code", "")), word)))


def _enrolled(pipeline: Record, _now: datetime) -> str:
    return "change pending" if pipeline.get("outdated") else plain(pipeline.get("enrolled"))


def _insight(insight: Record, _now: datetime) -> str:
    return str(insight.get("problem") or unmarked(plain(insight.get("value"))))


def _paused(job: Record, _now: datetime) -> str:
    return "paused" if job.get("paused") else "active"


NAME = Column("NAME", field("name"), keep_whole=True)

TOOL = TableView(
    "tool",
    [
        NAME,
        Column("IMAGE", field("image")),
        Column("AUTHOR", field("author")),
        Column("DESCRIPTION", field("description")),
        Column("COMMAND", field("command"), wide=True),
        Column("NETWORK", field("network"), wide=True),
        Column("MEMORY", field("limits.memory", size), wide=True),
        Column("DATA REPO", field("data_repo"), wide=True),
        Column("CODE REPO", field("code_repo"), wide=True),
        Column("ARTEFACT", field("artefact"), wide=True),
    ],
)
DATASET = TableView(
    "dataset",
    [
        NAME,
        Column("MASTER", field("master")),
        Column("NODES", field("nodes")),
        Column("WAITING", field("status.outbox.waiting")),
        Column("WHY", field("status.outbox.detail")),
        Column("LFS ABOVE", field("lfs_above", size), wide=True),
        Column("EXTERNAL", field("external"), wide=True),
        Column("DESCRIPTION", field("description"), wide=True),
    ],
)
INSIGHT = TableView(
    "insight",
    [
        Column("KEY", field("key"), keep_whole=True),
        Column("DATASET", field("dataset")),
        Column("COMMIT", field("commit", _commit)),
        Column("SIZE", field("size", size)),
        Column("VALUE", _insight),
    ],
    key="key",
)
VERIFICATION = TableView(
    "verification",
    [
        Column("RUN", field("run"), keep_whole=True),
        Column("OK", field("ok")),
        Column("FILES", field("files")),
        Column("BYTES", field("bytes")),
    ],
)

PIPELINE = TableView(
    "pipeline",
    [
        NAME,
        Column("TOOLS", _names_of("steps", "tool")),
        Column("DATASETS", _names_of("steps", "dataset")),
        Column("ENROLLED", _enrolled),
        Column("PENDING", field("pending"), wide=True),
        Column("OVERLAP", field("overlap"), wide=True),
        Column("TITLE", field("title"), wide=True),
        Column("DESCRIPTION", field("description"), wide=True),
    ],
)
RUN = TableView(
    "run",
    [
        Column("ID", field("id"), keep_whole=True),
        Column("PIPELINE", field("pipeline"), wide=True),
        Column("PHASE", field("phase"), keep_whole=True),
        Column("STEPS", _steps_done),
        Column("TRIGGER", field("trigger")),
        Column("AGE", _age("created_at"), keep_whole=True),
        Column("TOOK", _run_took, keep_whole=True),
        Column("TICK", field("scheduled_for"), wide=True, keep_whole=True),
        Column("NODE", field("node"), wide=True),
        Column("WHY", _why),
    ],
    key="id",
)
STEP = TableView(
    "step",
    [
        Column("STEP", field("spec.name"), keep_whole=True),
        Column("TOOL", field("spec.tool")),
        Column("DATASET", field("spec.output.name")),
        Column("PHASE", field("phase"), keep_whole=True),
        Column("ATTEMPT", field("attempt")),
        Column("TOOK", _step_took, keep_whole=True),
        Column("EXIT", _exit),
        Column("SNAPSHOT", field("snapshot", _commit), keep_whole=True),
        Column("IMAGE", field("spec.image.pinned"), wide=True),
        Column("NOTE", _step_note),
    ],
    key="spec.name",
)
JOB = TableView(
    "job",
    [
        Column("ID", field("id"), keep_whole=True),
        Column("PIPELINE", field("pipeline")),
        Column("CRON", field("cron"), keep_whole=True),
        Column("ZONE", field("timezone")),
        Column("STATE", _paused),
        Column("NEXT", _age("next"), keep_whole=True),
        Column("LAST", field("last.phase")),
        Column("AGE", _age("created_at"), keep_whole=True),
        Column("CATCH UP", field("catch_up"), wide=True),
        Column("DEADLINE", field("start_deadline"), wide=True),
        Column("OVERLAP", field("overlap"), wide=True),
    ],
    key="id",
)
ENROLMENT = TableView("enrolment", [Column("PIPELINE", field("pipeline"))], key="pipeline")
COMMIT = TableView(
    "commit",
    [
        Column("COMMIT", field("commit", _commit), keep_whole=True),
        Column("AGE", _age("time"), keep_whole=True),
        Column("AUTHOR", field("author")),
        Column("SUBJECT", field("subject")),
        Column("RUN", field("run"), keep_whole=True),
    ],
    key="commit",
)
BRANCH = TableView(
    "branch",
    [
        Column("BRANCH", field("name"), keep_whole=True),
        Column("COMMIT", field("commit", _commit), keep_whole=True),
        Column("AGE", _age("time"), keep_whole=True),
        Column("UNPUSHED", field("unpushed")),
        Column("SUBJECT", field("subject")),
    ],
)
FILE = TableView(
    "file",
    [
        Column("PATH", field("path"), keep_whole=True),
        Column("SIZE", field("size", size)),
        Column("KIND", field("kind")),
        Column("BLOB", field("id", _commit), wide=True),
    ],
    key="path",
)
FILE_DIFFERENCE = TableView(
    "difference",
    [
        Column("CHANGE", field("change"), keep_whole=True),
        Column("PATH", field("path"), keep_whole=True),
        Column("BEFORE", field("before", _commit), wide=True),
        Column("AFTER", field("after", _commit), wide=True),
    ],
    key="path",
)
FIELD_DIFFERENCE = TableView(
    "difference",
    [
        Column("CHANGE", field("change"), keep_whole=True),
        Column("KEY", field("key")),
        Column("FIELD", field("field")),
        Column("BEFORE", field("before")),
        Column("AFTER", field("after")),
    ],
    key="key",
)
CHECK = TableView(
    "check",
    [
        Column("CHECK", field("name"), keep_whole=True),
        Column("STATE", field("state"), keep_whole=True),
        Column("DETAIL", field("detail")),
        Column("NEXT", field("next")),
    ],
)


def _compared(run: Record) -> str:
    """What a reproduction found, in numbers."""
    found = next((step["reproduced"] for step in run.get("steps") or [] if step.get("reproduced")), None)
    if found is None:
        return ""
    kinds = [f"{len(found[kind])} {kind}" for kind in ("different", "missing", "extra") if found.get(kind)]
    return ", ".join([f"{found.get('identical', 0)} identical", *kinds])


def run_facts(run: Record, now: datetime) -> list[tuple[str, str]]:
    """What a person asks about a run first."""
    error = _error(run)
    cancel = run.get("cancel") or {}
    return [
        ("run", str(run.get("id"))),
        ("pipeline", str(run.get("pipeline"))),
        ("node", str(run.get("node"))),
        ("phase", str(run.get("phase"))),
        ("trigger", str(run.get("trigger"))),
        ("tick", str(run.get("scheduled_for") or "")),
        ("job", str(run.get("schedule") or "")),
        ("retry of", str(run.get("retry_of") or "")),
        ("reproduces", str((run.get("reproduces") or {}).get("run") or "")),
        ("compared", _compared(run)),
        ("created", str(run.get("created_at"))),
        ("took", _run_took(run, now)),
        ("reason", str(run.get("reason") or "")),
        ("cancelled", str(cancel.get("reason") or cancel.get("requested_at") or "")),
        ("error", str(error.get("detail") or "")),
        ("fault", str(error.get("fault") or "")),
        ("next", str(error.get("next") or "")),
    ]


def time_facts(times: Iterable[str], now: datetime) -> list[tuple[str, str]]:
    """Coming times, each with how far away it is."""
    return [(harmless_line(time), relative(time, now)) for time in times]


def _last_point(key: str) -> Cell:
    def cell(record: Record, _now: datetime) -> str:
        points = record.get("points") or [{}]
        return plain(points[-1].get(key))

    return cell


ALARM = TableView(
    "alarm",
    [
        Column("ID", field("id"), keep_whole=True),
        Column("KIND", field("kind")),
        Column("AGE", _age("raised_at"), keep_whole=True),
        Column("OVER", _age("over"), keep_whole=True),
        Column("SEEN BY", field("acknowledged.by")),
        Column("WHAT", field("detail")),
    ],
    key="id",
)
SERIES = TableView(
    "series",
    [
        Column("PIPELINE", field("pipeline")),
        Column("STEP", field("step")),
        Column("METRIC", field("metric"), keep_whole=True),
        Column("NEWEST", _last_point("value"), keep_whole=True),
        Column("UNIT", field("unit")),
        Column("RUN", _last_point("run"), wide=True),
    ],
    key="metric",
)
POINT = TableView(
    "point",
    [
        Column("TIME", field("time"), keep_whole=True),
        Column("VALUE", field("value"), keep_whole=True),
        Column("EXPECTED", field("expected")),
        Column("BAND", field("band")),
        Column("ACCEPTED", field("accepted")),
        Column("RUN", field("run"), keep_whole=True),
    ],
    key="run",
)
WEBHOOK = TableView(
    "webhook",
    [
        NAME,
        Column("URL", field("url")),
        Column("WAITING", field("waiting")),
        Column("GIVEN UP", field("given_up")),
        Column("LAST ERROR", field("last_error")),
    ],
)
