"""Spikes over a repository's rounds: a single node's spike is distinguished from a common one."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from mao_datamgmt.monitoring.spikes import find_spikes
from mao_shared.models import ControlMetric
from tests.vote.repo import TICK, new_repository, vote

CALM = 40


def test_spikes_nodes_spike_and_one_of_all(tmp_path: Path) -> None:
    clone, tip = new_repository(tmp_path), None
    values = [(100.0 + n % 3,) * 3 for n in range(CALM)] + [(101.0, 101.0, 300.0), (102.0,) * 3, (300.0,) * 3]
    for number, numbers in enumerate(values):
        files = {f"n{place + 1}": {"m.csv": f"id,v\ntotal,{value}\n"} for place, value in enumerate(numbers)}
        tick = TICK + timedelta(hours=number)
        tip = vote(clone, files, tip, round_id=f"{tick:%Y%m%dT%H%M%SZ}-p-s", tick=tick).commit
    assert tip is not None

    found = find_spikes(clone, tip, [ControlMetric(name="total", file="m.csv", column="v")], 100)

    assert found.rounds == len(values)
    assert [(item.whose, item.nodes) for item in found.items] == [
        ("consensus", ["n1", "n2", "n3"]),
        ("node", ["n3"]),
    ]
    assert found.items[1].values == {"n3": 300}
    assert (found.items[0].value, found.items[1].value) == (300, 101)
    absent = ControlMetric(name="none", file="absent.csv", column="v")
    assert find_spikes(clone, tip, [absent], 100).items == []
