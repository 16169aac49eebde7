"""While one of three nodes is off for six ticks, the others miss no tick and no round."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from mao_shared.models import format_time
from tests.support.docker import Engine
from tests.support.federated import Lab, SiteNode, ground_truth, lab, until
from tests.support.shared_pipeline import HONEST
from tests.support.sites import at_sites

pytestmark = at_sites(500)
TICKS = 6
AHEAD = timedelta(seconds=4)  # time to start the tick on two nodes before it is due
DEADLINE = 25  # seconds: several ticks fall due while a round waits for the absent node
SUM = "awk -F, 'END { print NR }' /usr/src/app/input/values.csv > /usr/src/app/data/rows.txt"
PIPELINE = "watch"


@pytest.fixture(scope="module")
def federated(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Enrol three nodes in a pipeline whose second step reads the ground truth of the first."""
    collect, total = engine.build(HONEST), engine.build(SUM)
    with lab(tmp_path_factory.mktemp("lab")) as nodes:
        nodes.federate()
        first, *others = nodes.nodes
        for name, image in (("collect", collect), ("total", total)):
            first.maoctl("tool", "add", name, "A. Scientist", image, "", "", "x")
        for name in ("values", "sums"):
            _, url = nodes.remote(name)
            body = {"name": name, "master": url, "vote": {"deadline": DEADLINE}}
            assert first.http.post("/registry/datasets", json=body).is_success
        steps = [
            {"name": "collect", "tool": "collect", "dataset": "values"},
            {"name": "total", "tool": "total", "input_dataset": "values", "dataset": "sums"},
        ]
        made = first.http.post("/pipeline/init", json={"name": PIPELINE, "steps": steps})
        assert made.is_success, made.text
        for node in others:
            node.maoctl("pipeline", "enrol", PIPELINE)
        yield nodes


def runs(node: SiteNode) -> list[dict[str, Any]]:
    items = node.http.get("/runs", params={"pipeline": PIPELINE, "limit": 1000}).json()["items"]
    return sorted((r for r in items if r["scheduled_for"]), key=lambda r: str(r["scheduled_for"]))


def rounds(node: SiteNode, dataset: str) -> dict[str, str]:
    """Return the phase of each round, by tick."""
    answer = node.http.get("/rounds", params={"dataset": dataset, "limit": 1000})
    assert answer.is_success, answer.text
    return {item["tick"]: item["phase"] for item in answer.json()["items"]}


def tick_on(nodes: list[SiteNode]) -> str:
    """Run a tick with the policy `skip` and return it once both nodes have observed it.

    The next tick follows at once, so that the duration of a step on a busy machine does not matter.
    """
    moment = (datetime.now(UTC) + AHEAD).replace(microsecond=0)
    spec = {"cron": f"{moment:%-S %-M %-H %-d %-m} *", "seconds": True, "timezone": "UTC"}
    for node in nodes:
        body = {"name": PIPELINE, **spec, "overlap": "skip", "start_deadline": 300}
        answer = node.http.post("/pipeline/run", json=body)
        assert answer.is_success, answer.text
    tick = format_time(moment)
    until(lambda: all(is_decided(node, tick) for node in nodes), f"the tick {tick} is observed or missed")
    return tick


def is_decided(node: SiteNode, tick: str) -> bool:
    return any(r["scheduled_for"] == tick and (is_observed(r) or r["phase"] == "missed") for r in runs(node))


def are_decided(node: SiteNode, dataset: str, ticks: list[str]) -> bool:
    return {rounds(node, dataset).get(tick) for tick in ticks} == {"decided"}


def is_observed(run: dict[str, Any]) -> bool:
    return bool(run["steps"]) and run["steps"][0]["phase"] == "succeeded"


def test_absent_node_costs_others_no_tick_and_no_round(federated: Lab) -> None:
    first, second, absent = federated.nodes
    absent.stop()
    present = [first, second]
    ticks = [tick_on(present) for _ in range(TICKS)]
    waiting = [r for r in runs(first) if r["phase"] == "running"]
    assert len(waiting) > 1  # concurrent, which the policy would not allow for runs at work
    until(
        lambda: not any(r["phase"] in ("queued", "running") for node in present for r in runs(node)),
        "all runs have ended",
        150,
    )
    for node in present:
        found = runs(node)
        assert [r["scheduled_for"] for r in found] == ticks
        assert [r["reason"] for r in found if r["phase"] != "succeeded"] == []
        assert all(is_observed(r) for r in found)
        assert {r["steps"][1]["phase"] for r in found} == {"succeeded"}
        begun = [_time(r["steps"][1]["times"]["ready"]) for r in found]
        assert begun == sorted(begun)
    for dataset in ("values", "sums"):
        until(partial(are_decided, first, dataset, ticks), f"every round of {dataset} is decided", 120)
        assert len(ground_truth(federated.root / f"{dataset}.git")) >= len(ticks)


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)
