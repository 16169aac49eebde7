"""Measure the lateness of APScheduler's jobs; run by peers.py in the peers' environment.

apscheduler_lateness.py memory|sqlite DATABASE JOBS DUE ROUNDS → JSON: lateness in seconds, a list per round.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from apscheduler.jobstores.memory import MemoryJobStore
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.cron import CronTrigger

BETWEEN_ROUNDS = 10  # seconds
BEFORE_FIRST = 5
LONGEST_ROUND = 60.0

_late: list[tuple[float, float]] = []  # tick, lateness in seconds
_some = threading.Condition()


def body(tick: float) -> None:
    """Record the lateness of a job."""
    now = time.time()
    with _some:
        _late.append((tick, now - tick))
        _some.notify_all()


def trigger(moment: datetime) -> CronTrigger:
    return CronTrigger(hour=moment.hour, minute=moment.minute, second=moment.second, timezone=UTC)


def make_scheduler(store: str, database: Path) -> BackgroundScheduler:
    if store == "memory":
        jobstore = MemoryJobStore()
    else:
        from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore

        jobstore = SQLAlchemyJobStore(url=f"sqlite:///{database}")
    defaults = {"misfire_grace_time": 300, "coalesce": True}
    return BackgroundScheduler(jobstores={"default": jobstore}, job_defaults=defaults, timezone=UTC)


def main() -> None:
    store, database, jobs, due, rounds = sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:])
    scheduler = make_scheduler(store, database)
    scheduler.start(paused=True)
    idle_until = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=6)
    for number in range(jobs - due * rounds):
        scheduler.add_job(body, trigger(idle_until + timedelta(seconds=number)), [0.0])
    added: list[tuple[float, object]] = []
    # All jobs are added before the first tick.
    first = datetime.now(UTC).replace(microsecond=0) + timedelta(
        seconds=_adding_time(scheduler, due * rounds)
    )
    ticks = [first + timedelta(seconds=BETWEEN_ROUNDS * i) for i in range(rounds)]
    for tick in ticks:
        for _ in range(due):
            added.append((tick.timestamp(), scheduler.add_job(body, trigger(tick), [tick.timestamp()])))
    if time.time() > first.timestamp() - BEFORE_FIRST / 2:
        raise SystemExit("the jobs were not added before the first tick")
    scheduler.resume()
    with _some:
        if not _some.wait_for(lambda: len(_late) >= due * rounds, _wait(ticks[-1])):
            raise SystemExit(f"only {len(_late)} of {due * rounds} jobs ran")
    scheduler.shutdown()
    by_tick = [[late for at, late in _late if at == tick.timestamp()] for tick in ticks]
    json.dump(by_tick, sys.stdout)


def _adding_time(scheduler: BackgroundScheduler, jobs: int) -> int:
    """Estimate the seconds for adding `jobs` jobs, with a margin, from a sample."""
    began = time.monotonic()
    sample = [
        scheduler.add_job(body, trigger(datetime.now(UTC) + timedelta(hours=5)), [0.0]) for _ in range(50)
    ]
    seconds_per_job = (time.monotonic() - began) / len(sample)
    for job in sample:
        job.remove()
    return BEFORE_FIRST + 3 + int(2 * seconds_per_job * jobs)


def _wait(last: datetime) -> float:
    return last.timestamp() - time.time() + LONGEST_ROUND


if __name__ == "__main__":
    main()
