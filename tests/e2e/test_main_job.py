"""The original README's commands, verbatim, against a native node with real etcd, Docker and git."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import main_job
from tests.support.git import bare_repository, git
from tests.support.main_job import Names
from tests.support.node import NativeNode

pytestmark = [pytest.mark.docker, pytest.mark.etcd]


def test_main_job_readmes_calls_bring_output_to_remote(
    node: NativeNode, tool_image: str, tmp_path: Path
) -> None:
    remote = bare_repository(tmp_path / "remote.git")
    names = Names("seed-tool", "seed-data")

    main_job.register(node, names, tool_image, str(remote))
    run = main_job.run_once(node, names)

    assert run["phase"] == "succeeded", run
    snapshot = run["steps"][0]["snapshot"]
    assert git(remote, "rev-parse", node.name) == snapshot
    assert git(remote, "merge-base", "--is-ancestor", snapshot, "ground-truth") == ""
    assert git(remote, "rev-parse", f"{node.name}^{{tree}}") == git(
        remote, "rev-parse", "ground-truth^{tree}"
    )
    assert run["id"] in git(remote, "log", "-1", "--format=%B", node.name)


def test_main_job_schedule_runs_every_tick_once_and_commits_it(
    node: NativeNode, tool_image: str, tmp_path: Path
) -> None:
    remote = bare_repository(tmp_path / "remote.git")
    names = Names("cron-tool", "cron-data")
    main_job.register(node, names, tool_image, str(remote))

    job = main_job.schedule_every_two_seconds(node, names)
    runs = main_job.ended_runs_of(node, job["id"], 3)
    node.maoctl("job", "remove", job["id"], "--yes")

    ticks = [run["scheduled_for"] for run in runs]
    assert ticks == sorted(set(ticks))
    done = [run for run in runs if run["phase"] == "succeeded"]
    assert done, runs
    log = git(remote, "log", "--format=%B", node.name)
    for run in done:
        assert log.count(f"MAO-Run: {run['id']}") == 1


def test_main_job_of_seed_cron_call_is_listed_and_deleted(
    node: NativeNode, tool_image: str, tmp_path: Path
) -> None:
    names = Names("minute-tool", "minute-data")
    main_job.register(node, names, tool_image, str(bare_repository(tmp_path / "remote.git")))

    job = main_job.schedule(node, names, "0 4 * * *")

    assert job["id"] in [item["id"] for item in node.http.get("/jobs").json()["items"]]
    assert main_job.schedule(node, names, "0 4 * * *")["id"] == job["id"]
    assert node.http.delete(f"/jobs/{job['id']}").status_code in (200, 204)
    assert node.http.get(f"/jobs/{job['id']}").status_code == 404
