"""With the federation down, a node cut off or a leader killed, ticks run once and rounds are decided once."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mao_shared.models import format_time
from tests.support.docker import Engine
from tests.support.federated import SiteNode, ground_truth, lab, until
from tests.support.shared_pipeline import HONEST, SharedPipeline, share
from tests.support.sites import at_sites

pytestmark = at_sites(500)
TICKS = 6
EVERY = 4  # seconds between two ticks


@pytest.fixture(scope="module")
def shared(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedPipeline]:
    """Run three nodes that share a pipeline and all run the federation's etcd."""
    image = engine.build(HONEST)
    soon = {"MAO_ROUND_GRACE": "15", "MAO_PUSH_RETRY": "1"}
    with lab(tmp_path_factory.mktemp("lab"), **soon) as nodes:
        nodes.federate(core=3)
        yield share(nodes, image, deadline=15)


def past_ticks(count: int, *, ago: timedelta) -> list[str]:
    begin = (datetime.now(UTC) - ago).replace(microsecond=0)
    return [format_time(begin + timedelta(seconds=10 * i)) for i in range(count)]


def run_all(shared: SharedPipeline, nodes: list[SiteNode], ticks: list[str]) -> None:
    """Run these ticks on these nodes and wait for all runs."""
    started = [(node, shared.run_tick(node, tick)) for tick in ticks for node in nodes]
    for node, run in started:
        assert node.wait_run(run)["phase"] == "succeeded"


def decided_once(shared: SharedPipeline, ticks: list[str]) -> None:
    """Assert that each of these ticks has one decided round, with its own ground-truth commit."""
    rounds = [r for r in shared.rounds(shared.lab.nodes[0]).values() if r["tick"] in ticks]
    assert Counter(r["tick"] for r in rounds) == Counter(ticks)
    assert {r["phase"] for r in rounds} == {"decided"}, rounds
    made = Counter(ground_truth(shared.remote))
    assert all(made[r["commit"]] == 1 for r in rounds)


@contextlib.contextmanager
def frozen(nodes: list[SiteNode]) -> Iterator[None]:
    """Freeze the federation's etcd of these nodes for the block."""
    for node in nodes:
        node.freeze_federation()
    try:
        yield
    finally:
        for node in nodes:
            node.thaw_federation()


def test_outage_node_that_is_cut_off_is_missing_and_catches_up(shared: SharedPipeline) -> None:
    first, _, third = shared.lab.nodes
    ticks = past_ticks(2, ago=timedelta(minutes=30))
    third.site.cut()
    try:
        run_all(shared, shared.lab.nodes, ticks)
        before = len(ticks)
        until(
            lambda: (
                sum(r["tick"] in ticks and r["phase"] == "decided" for r in shared.rounds(first).values())
                == before
            ),
            "the other two decide",
            150,
        )
    finally:
        third.site.join()
    decided_once(shared, ticks)
    for found in (r for r in shared.rounds(first).values() if r["tick"] in ticks):
        assert third.name in found["abstained"]
    tip = ground_truth(shared.remote)[-1]
    until(
        lambda: (
            tip in {r["commit"] for r in shared.rounds(third).values()}
            and third.ask("dataset", "show", "values")["status"]["outbox"]["state"] == "in-sync"
        ),
        "the third catches up",
    )


def test_outage_leader_killed_during_round_leaves_one_result(shared: SharedPipeline) -> None:
    first = shared.lab.nodes[0]
    ticks = past_ticks(1, ago=timedelta(minutes=10))
    runs = [(node, shared.run_tick(node, ticks[0])) for node in shared.lab.nodes]
    until(lambda: any(r["tick"] in ticks for r in shared.rounds(first).values()), "the round is open")
    leader = until(
        lambda: next((n for n in shared.lab.nodes if n.leads_federation()), None), "somebody leads"
    )
    leader.kill_federation()
    leader.kill("datamgmt")
    for node, run in runs:
        assert node.wait_run(run)["phase"] == "succeeded"
    leader.wait_ready()
    until(
        lambda: any(r["tick"] in ticks and r["phase"] == "decided" for r in shared.rounds(first).values()),
        "the round is decided",
        150,
    )
    decided_once(shared, ticks)
    assert Path(shared.remote).exists()


def test_outage_federation_without_quorum_costs_no_tick_and_no_round(shared: SharedPipeline) -> None:
    """Runs last in this module: it uses current ticks, and a dataset's ticks never go back."""
    first, *others = shared.lab.nodes
    jobs = [(node, shared.job(node, f"*/{EVERY} * * * * *")) for node in shared.lab.nodes]
    with frozen(others):
        until(lambda: "age" in first.http.get("/registry/datasets").headers, "the federation is missed")
        ticks = ticks_from(datetime.now(UTC))
        for node, job in jobs:
            wait_for_runs(shared, node, ticks[-1:])
            assert node.http.post(f"/jobs/{job}/pause").is_success
        for node in shared.lab.nodes:
            wait_for_runs(shared, node, ticks, "succeeded")
        refused = first.http.post("/registry/tools", json={"name": "x", "author": "x", "image": "x"})
        assert refused.status_code == 503
        assert "retry-after" in refused.headers

    for node in shared.lab.nodes:
        ran = Counter(run["scheduled_for"] for run in shared.runs(node))
        assert {tick: ran[tick] for tick in ticks} == dict.fromkeys(ticks, 1)
        assert phases(shared, node, ticks) == dict.fromkeys(ticks, "succeeded")
    until(lambda: set(ticks) <= ended_ticks(shared, first), "all their rounds have ended", 150)
    decided_once(shared, ticks)


def ticks_from(begin: datetime) -> list[str]:
    """Return the schedule's next ticks from a moment on."""
    last = begin.replace(second=begin.second // EVERY * EVERY, microsecond=0)
    return [format_time(last + timedelta(seconds=EVERY * i)) for i in range(1, TICKS + 1)]


def phases(shared: SharedPipeline, node: SiteNode, ticks: list[str]) -> dict[str, str]:
    return {run["scheduled_for"]: run["phase"] for run in shared.runs(node) if run["scheduled_for"] in ticks}


def wait_for_runs(shared: SharedPipeline, node: SiteNode, ticks: list[str], phase: str | None = None) -> None:
    """Wait until each of the ticks has a run, in `phase` if given."""

    def there() -> bool:
        found = phases(shared, node, ticks)
        return len(found) == len(ticks) and (phase is None or set(found.values()) == {phase})

    until(there, f"{node.name} has runs of {len(ticks)} ticks")


def ended_ticks(shared: SharedPipeline, node: SiteNode) -> set[str]:
    rounds = shared.rounds(node).values()
    return {r["tick"] for r in rounds if r["phase"] in ("decided", "undecided")}
