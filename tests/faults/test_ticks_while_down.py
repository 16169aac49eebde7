"""Ticks due while the node is down are recorded once each, according to the schedule's policy."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support import main_job
from tests.support.git import bare_repository
from tests.support.main_job import Names
from tests.support.node import NativeNode, native_node

pytestmark = [pytest.mark.docker, pytest.mark.etcd]


def runs_of(node: NativeNode, job_id: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = node.http.get("/runs", params={"schedule": job_id, "limit": 1000}).json()[
        "items"
    ]
    return items


@pytest.mark.parametrize(("catch_up", "ran"), [("none", False), ("all", True)])
def test_downtime_every_second_has_one_record(
    tmp_path: Path, tool_image: str, catch_up: str, ran: bool
) -> None:
    with native_node(tmp_path, name="sleeper") as node:
        main_job.register(node, Names("t", "d"), tool_image, str(bare_repository(tmp_path / "remote.git")))
        spec = {"cron": "* * * * * *", "seconds": True, "catch_up": catch_up, "start_deadline": 1}
        job = node.http.post("/pipeline/run", json={"name": "t", "overlap": "queue", **spec}).json()
        before = main_job.ended_runs_of(node, job["id"], 1)[0]["scheduled_for"]

        node.stop()
        down_until = datetime.now().astimezone()
        node.restart()
        after = node.run_after(job["id"], down_until)
        node.http.post(f"/jobs/{job['id']}/pause")

        runs = {run["scheduled_for"]: run for run in runs_of(node, job["id"])}
        assert set(Counter(run["scheduled_for"] for run in runs_of(node, job["id"])).values()) == {1}
        first, last = datetime.fromisoformat(before), datetime.fromisoformat(after["scheduled_for"])
        ticks = [first + timedelta(seconds=i) for i in range(int((last - first).total_seconds()) + 1)]
        recorded = {datetime.fromisoformat(text) for text in runs}
        assert not set(ticks) - recorded
        missed = [run for run in runs.values() if run["phase"] == "missed"]
        assert bool(missed) != ran
