"""Three nodes share a pipeline: each tick has one round and one commit, and a liar changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.docker import Engine
from tests.support.federated import evidence, ground_truth, lab, until
from tests.support.git import git
from tests.support.shared_pipeline import COLLECT, LIAR, SharedPipeline, share
from tests.support.sites import at_sites

pytestmark = at_sites(400)
TICKS = 6


@pytest.fixture(scope="module")
def shared(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedPipeline]:
    """Run ten ticks on every node and wait for their votes."""
    image = engine.build(COLLECT)
    with lab(tmp_path_factory.mktemp("lab")) as nodes:
        nodes.federate()
        shared = share(nodes, image, deadline=60)
        jobs = [(node, shared.job(node, "*/3 * * * * *")) for node in nodes.nodes]
        last = nodes.nodes[-1]
        until(lambda: len(shared.runs(last)) >= TICKS + 1, "the ticks have begun", 150)
        for node, job in jobs:
            node.http.post(f"/jobs/{job}/pause")
        until(
            lambda: not any(is_active(run) for n in nodes.nodes for run in shared.runs(n)), "all runs ended"
        )
        ticks = common_ticks(shared)
        until(lambda: set(ticks) <= ended_ticks(shared), "all rounds have ended", 180)
        yield shared


def all_runs(shared: SharedPipeline) -> list[dict[str, Any]]:
    return [run for node in shared.lab.nodes for run in shared.runs(node)]


def is_active(run: dict[str, Any]) -> bool:
    return run["phase"] in ("queued", "running")


def ended_ticks(shared: SharedPipeline) -> set[str]:
    rounds = shared.rounds(shared.lab.nodes[0]).values()
    return {r["tick"] for r in rounds if r["phase"] in ("decided", "undecided")}


def common_ticks(shared: SharedPipeline) -> list[str]:
    """Return the ticks that every node has run."""
    ran = [
        {r["scheduled_for"] for r in shared.runs(node) if r["phase"] == "succeeded"}
        for node in shared.lab.nodes
    ]
    return sorted(set.intersection(*ran))


def test_rounds_every_shared_tick_has_one_decided_round(shared: SharedPipeline) -> None:
    rounds = shared.rounds(shared.lab.nodes[0]).values()
    ticks = common_ticks(shared)
    assert len(ticks) >= TICKS
    for tick in ticks:
        assert [r["phase"] for r in rounds if r["tick"] == tick] == ["decided"]


def test_rounds_every_decided_round_is_one_commit_with_its_evidence(shared: SharedPipeline) -> None:
    decided = {r["id"]: r for r in shared.rounds(shared.lab.nodes[0]).values() if r["phase"] == "decided"}
    commits = ground_truth(shared.remote)
    assert sorted(r["commit"] for r in decided.values()) == sorted(commits)
    assert set(evidence(shared.remote)) == set(decided)
    for name, found in decided.items():
        assert git(shared.remote, "show", f"{found['commit']}:.mao/rounds/{name}.json")


def test_rounds_liar_changes_nothing_and_leads_ranking(shared: SharedPipeline) -> None:
    for found in shared.rounds(shared.lab.nodes[0]).values():
        if found["phase"] != "decided" or "alpha" not in found["commits"] or "beta" not in found["commits"]:
            continue
        assert shared.file(found["commit"]) == shared.file(found["commits"]["alpha"])
        if LIAR in found["commits"]:
            assert shared.file(found["commits"][LIAR]) != shared.file(found["commit"])
    ranking = shared.lab.nodes[1].ask("vote", "ranking", shared.dataset)
    assert ranking["items"][0]["node"] == LIAR, ranking
    assert Path(shared.remote).exists()
