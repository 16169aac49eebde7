"""A node without its federation store runs its enrolled pipelines at normal speed."""

from __future__ import annotations

import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mao_shared.models import format_time
from tests.support import main_job
from tests.support.etcd import running_etcd
from tests.support.federated import until
from tests.support.git import bare_repository
from tests.support.main_job import Names
from tests.support.node import NativeNode, native_node

pytestmark = [pytest.mark.docker, pytest.mark.etcd]

EVERY, TICKS = 3, 5  # seconds between two ticks of a schedule, and the number of ticks
OTHER = {"name": "other", "image": "x:1"}


def seconds_of_a_run(node: NativeNode, names: Names) -> float:
    """Run a pipeline, check that it succeeds, and return its duration in seconds."""
    began = time.monotonic()
    run = main_job.run_once(node, names)
    assert run["phase"] == "succeeded", run
    return time.monotonic() - began


def schedule(node: NativeNode, names: Names) -> str:
    spec = {"cron": f"*/{EVERY} * * * * *", "seconds": True, "overlap": "queue"}
    answer = node.http.post("/pipeline/run", json={"name": names.tool, **spec})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def every_tick_is_run_once(node: NativeNode, job: str) -> None:
    """Wait for a number of ticks, pause the schedule, and check that each tick has one run."""
    begin = datetime.now(UTC)
    before = begin.replace(second=begin.second // EVERY * EVERY, microsecond=0)
    ticks = [format_time(before + timedelta(seconds=EVERY * i)) for i in range(1, TICKS + 1)]
    last = node.run_after(job, datetime.fromisoformat(ticks[-2]))
    assert node.http.post(f"/jobs/{job}/pause").is_success
    node.wait_run(last["id"])
    runs = node.http.get("/runs", params={"schedule": job, "limit": 1000}).json()["items"]
    found = Counter((run["scheduled_for"], run["phase"]) for run in runs if run["scheduled_for"] in ticks)
    assert found == {(tick, "succeeded"): 1 for tick in ticks}


def test_federation_outage_runs_succeed_without_federation(tmp_path: Path, tool_image: str) -> None:
    names = Names("lonely", "lonely-data")
    with running_etcd() as federation:
        env = {"MAO_FEDERATION_ENDPOINTS": federation.endpoints}
        with native_node(tmp_path, name="cut-off", env=env) as node:
            main_job.register(node, names, tool_image, str(bare_repository(tmp_path / "remote.git")))
            usual = max(seconds_of_a_run(node, names) for _ in range(2))

            job = schedule(node, names)
            federation.freeze()  # a silent store is worse than a dead one: the caller gets no error
            every_tick_is_run_once(node, job)
            silent = seconds_of_a_run(node, names)
            again = seconds_of_a_run(node, names)
            assert node.http.get("/readyz").status_code == 200
            answer = node.http.get(f"/registry/tools/{names.tool}")
            assert answer.status_code == 200
            assert answer.headers["x-mao-as-of"]
            said = node.maoctl("tool", "get", names.tool)
            assert "the federation does not answer; this is as of" in said.stderr
            assert said.stderr.count("\n") == 1
            refused = node.http.post("/registry/tools", json=OTHER)
            assert (refused.status_code, refused.json()["code"]) == (503, "federation-unavailable")
            assert refused.headers["retry-after"]
            doctor = node.maoctl("doctor", check=False)
            assert "unreachable" in doctor.stdout

            federation.thaw()
            federation.kill()
            dead = seconds_of_a_run(node, names)

            federation.start()
            node.wait_ready()
            # The federation's outage is not the node's fault, so readiness does not report it.
            until(
                lambda: node.http.post("/registry/tools", json=OTHER).status_code == 201,
                "the federation is back",
            )
            print(f"usual {usual:.2f} s, silent {silent:.2f} s and {again:.2f} s, dead {dead:.2f} s")
