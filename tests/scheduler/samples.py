"""Sample records for the scheduler's tests, and a clock that moves only when set."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from mao_shared.models import (
    DatasetRef,
    Enrolment,
    Overlap,
    ResolvedImage,
    ResolvedStep,
    Retry,
    Run,
    Schedule,
    StepRun,
)

NODE = "node-1"
START = datetime(2026, 11, 24, 7, 0, tzinfo=UTC)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


class ManualClock:
    """A clock that stands still until it is set, forwards or backwards."""

    def __init__(self, now: datetime = START) -> None:
        self.moment = now

    def now(self) -> datetime:
        return self.moment

    def turn(self, **delta: float) -> None:
        self.moment += timedelta(**delta)


def step(name: str = "crawl", **changes: Any) -> ResolvedStep:
    image = ResolvedImage(name="lab/crawler:1", pinned="sha256:" + "0" * 64, platform="linux/amd64")
    output = DatasetRef(name="artefacts", master="/srv/artefacts.git", branch=NODE)
    return ResolvedStep(name=name, tool="crawler", image=image, output=output, **changes)


def enrolment(
    pipeline: str = "crawler", *, steps: int = 1, overlap: Overlap = "skip", retry: Retry | None = None
) -> Enrolment:
    resolved = [step(f"step-{n}", retry=retry or Retry()) for n in range(steps)]
    return Enrolment(
        pipeline=pipeline,
        node=NODE,
        steps=resolved,
        overlap=overlap,
        pipeline_revision=1,
        enrolled_at=START,
    )


def schedule(cron: str = "* * * * *", pipeline: str = "crawler", **changes: Any) -> Schedule:
    fields: dict[str, Any] = {"id": f"{pipeline}-1", "created_at": START}
    return Schedule(cron=cron, pipeline=pipeline, **(fields | changes))


def run(run_id: str = "r1", *, steps: int = 1, retry: Retry | None = None, **changes: Any) -> Run:
    """Return a queued manual run."""
    fields: dict[str, Any] = {"pipeline": "crawler", "node": NODE, "trigger": "manual", "created_at": START}
    resolved = [StepRun(spec=step(f"step-{n}", retry=retry or Retry())) for n in range(steps)]
    return Run(id=run_id, **(fields | {"steps": resolved} | changes))
