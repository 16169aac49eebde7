"""Vote on one large record file: a million records from five nodes, 140 000 of them contested.

The vote runs in its own process, so that peak memory excludes the creation of the files.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from pathlib import Path
from resource import RUSAGE_SELF, getrusage

from .report import Measure

NODES = 5
ROWS = 1_000_000
CONTESTED = 140_000
_STATES = ("running", "stopped", "unknown", "degraded")


def measure(folder: Path, *, quick: bool) -> list[Measure]:
    """Measure the median of three rounds; `quick`: one round with a tenth of the records."""
    rows, contested = (ROWS // 10, CONTESTED // 10) if quick else (ROWS, CONTESTED)
    make_files(folder, rows, contested)
    found = [_voted(folder) for _ in range(1 if quick else 3)]
    seconds, memory = [vote["seconds"] for vote in found], [vote["megabytes"] for vote in found]
    name = f"vote, {rows} records from {NODES} nodes, {found[0]['cells']} cells contested"
    size = found[0]["size"]
    note = f"5 columns and a key, {contested} records contested, {size:.0f} MB a node; bytes to bytes"
    middle = sorted(seconds)[len(seconds) // 2]
    return [
        Measure(name, middle, "s", judged="ours", goal=6, limit=6, note=note, rounds=tuple(seconds)),
        Measure(f"{name}, peak memory", max(memory), "MB", judged="ours", goal=1500, limit=1500),
    ]


def make_files(folder: Path, rows: int, contested: int) -> None:
    """Write node1.csv … node5.csv; in each contested record one to three nodes differ, or all by noise."""
    rng = random.Random(20261124)
    chosen = set(rng.sample(range(rows), contested))
    files = [(folder / f"node{number}.csv").open("w") for number in range(1, NODES + 1)]
    for file in files:
        file.write("artefact,pulls,stars,ratio,state,digest\n")
    for row in range(rows):
        values = [rng.randrange(10**7), rng.randrange(5000), round(rng.random(), 4), rng.choice(_STATES)]
        record = [f"artefact-{row}", *values, f"{rng.getrandbits(48):012x}"]
        same = ",".join(map(str, record)) + "\n"
        lines = _contested(record, rng) if row in chosen else [same] * NODES
        for file, line in zip(files, lines, strict=True):
            file.write(line)
    for file in files:
        file.close()


def _contested(record: list[object], rng: random.Random) -> list[str]:
    versions = [list(record) for _ in range(NODES)]
    if rng.random() < 0.3:  # each node measures a different value
        for version in versions:
            version[3] = round(float(str(record[3])) * rng.uniform(0.97, 1.03), 4)
    else:
        for version in rng.sample(versions, rng.randint(1, 3)):
            field = rng.randint(1, 5)
            version[field] = rng.choice(_STATES) if field == 4 else rng.randrange(10**6)
    return [",".join(map(str, version)) + "\n" for version in versions]


def _voted(folder: Path) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-m", "bench.vote", str(folder)], capture_output=True, text=True, check=True
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def vote_once(folder: Path) -> dict[str, float]:
    """Return the seconds of a vote from bytes to bytes, without loading polars, and the peak memory."""
    import polars  # noqa: F401 - loaded in a voting node

    from mao_shared.models.round import VoteDefinition
    from mao_vote import decide_file

    versions = {path.stem: path.read_bytes() for path in sorted(folder.glob("node*.csv"))}
    began = time.perf_counter()
    decision = decide_file("a.csv", versions, incumbent=None, definition=VoteDefinition(), weights={})
    seconds = time.perf_counter() - began
    return {
        "seconds": seconds,
        "megabytes": getrusage(RUSAGE_SELF).ru_maxrss / 1024,
        "cells": len(decision.cells),
        "size": len(decision.content or b"") / 10**6,
    }


if __name__ == "__main__":
    print(json.dumps(vote_once(Path(sys.argv[1]))))
