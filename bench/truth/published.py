"""Files and results that others have published, which the vote reproduces exactly."""

from __future__ import annotations

import csv
from pathlib import Path

from tests.support.evidence import find_shared_data

from bench.report import Measure
from mao_shared.models.round import VoteDefinition
from mao_vote import decide_file
from mao_vote.vdx import History, Voter


def measure(_: Path, *, quick: bool) -> list[Measure]:
    """Count where the vote differs from the published files; nothing if they are absent."""
    del quick
    data = find_shared_data()
    if data is None:
        print("bench: published results are skipped: ../shared/data is absent")
        return []
    return [equal_nodes(data / "dcc-bench2000"), light_sensors(data / "light-sensors")]


def equal_nodes(folder: Path) -> Measure:
    """Vote on three equal versions; the result is compared line by line."""
    versions = {path.stem: path.read_bytes() for path in sorted(folder.glob("node*.csv"))}
    decision = decide_file("2000.csv", versions, incumbent=None, definition=VoteDefinition(), weights={})
    theirs, ours = versions["node1"].splitlines(), (decision.content or b"").splitlines()
    differing = sum(one != other for one, other in zip(theirs, ours, strict=False)) + abs(
        len(theirs) - len(ours)
    )
    same = decision.content == versions["node1"] and not decision.cells
    name = "truth, dcc-bench2000: lines that differ from the input of three equal nodes"
    return exact(name, differing or int(not same), f"{len(theirs)} lines")


def light_sensors(folder: Path) -> Measure:
    """Vote on the rounds of five sensors with HYBRID; the outputs are compared as numbers."""
    published = [float(text) for text in (folder / "output.csv").read_text().split()]
    voter = Voter(VoteDefinition.model_validate({"history": "HYBRID", "collation": "MEAN_NEAREST_NEIGHBOR"}))
    history: History = ()
    differing = 0
    with (folder / "input.csv").open(newline="") as file:
        for row, wanted in zip(csv.reader(file), published, strict=True):
            outcome = voter.decide([float(text) for text in row], history)
            history = outcome.history
            differing += outcome.output != wanted
    name = "truth, light-sensors: rounds in which HYBRID differs from the published output"
    return exact(name, differing, f"{len(published)} rounds")


def exact(name: str, differing: int, note: str) -> Measure:
    return Measure(name, differing, "", judged="ours", goal=0, limit=0, note=note)
