"""Runs published methods on claims, in the environment of bench/truth/peers.lock.

`peers_run.py METHOD… < claims.json > found.json`.

Claims: {"sets": [[round, …], …]}; a round has "claims", a list of [source, key, field, value], and "asked",
the [key, field] of the cells to return. Found: for each method, "whole" and "field" have, for each set and
round, the values in the order of "asked", from one run on the whole round, or from a run on each field alone;
"seconds" is the time of all whole runs. "megabytes" is the peak of the process.
"""

from __future__ import annotations

import json
import sys
import time
import types
import warnings
from collections.abc import Callable
from resource import RUSAGE_SELF, getrusage
from typing import Any

for _name in ("cairo", "imageio", "imageio.v2"):  # only for pictures; the first needs a compiler to install
    sys.modules[_name] = types.ModuleType(_name)
sys.modules["imageio"].v2 = sys.modules["imageio.v2"]  # type: ignore[attr-defined]

import crowdkit.aggregation as crowdkit  # noqa: E402
import pandas  # noqa: E402
import truthdiscovery  # noqa: E402

Claims = list[tuple[str, tuple[str, str], str]]
Found = dict[tuple[str, str], str]


def crowd_kit(make: Callable[[], Any]) -> Callable[[Claims], Found]:
    def run(claims: Claims) -> Found:
        tasks = {cell: number for number, cell in enumerate(dict.fromkeys(cell for _, cell, _ in claims))}
        table = pandas.DataFrame(
            [(source, tasks[cell], value) for source, cell, value in claims],
            columns=["worker", "task", "label"],
        )
        labels = make().fit_predict(table).to_dict()
        return {cell: str(labels[task]) for cell, task in tasks.items()}

    return run


def truth_discovery(make: Callable[[], Any]) -> Callable[[Claims], Found]:
    def run(claims: Claims) -> Found:
        result = make().run(truthdiscovery.Dataset(claims))
        return {cell: min(result.get_most_believed_values(cell)) for cell in result.belief}

    return run


METHODS = {
    "MajorityVote": crowd_kit(crowdkit.MajorityVote),
    "Wawa": crowd_kit(crowdkit.Wawa),
    "TruthFinder": truth_discovery(truthdiscovery.TruthFinder),
    "Sums": truth_discovery(truthdiscovery.Sums),
    "AverageLog": truth_discovery(truthdiscovery.AverageLog),
    "Investment": truth_discovery(truthdiscovery.Investment),
    "PooledInvestment": truth_discovery(truthdiscovery.PooledInvestment),
}


def run_method(name: str, sets: list[list[dict[str, Any]]]) -> dict[str, Any]:
    run = METHODS[name]
    found: dict[str, Any] = {"whole": [], "field": []}
    seconds = 0.0
    for rounds in sets:
        for how in ("whole", "field"):
            began = time.perf_counter()
            if how == "field" and len(fields_of(rounds)) == 1:
                found[how].append(found["whole"][-1])
                continue
            results = [answer(run, part, by_field=how == "field") for part in rounds]
            seconds += time.perf_counter() - began if how == "whole" else 0
            found[how].append(results)
    return {"seconds": seconds, **found}


def fields_of(rounds: list[dict[str, Any]]) -> set[str]:
    return {claim[2] for part in rounds for claim in part["claims"]}


def answer(run: Callable[[Claims], Found], part: dict[str, Any], *, by_field: bool) -> list[str]:
    claims: Claims = [(source, (key, field), value) for source, key, field, value in part["claims"]]
    fields = dict.fromkeys(cell[1] for _, cell, _ in claims) if by_field else [None]
    found: Found = {}
    for field in fields:
        found |= run([claim for claim in claims if field in (None, claim[1][1])])
    return [found.get((key, field), "") for key, field in part["asked"]]


def main() -> None:
    warnings.simplefilter("ignore")
    sets = json.load(sys.stdin)["sets"]
    found: dict[str, Any] = {name: run_method(name, sets) for name in sys.argv[1:] or METHODS}
    json.dump({"found": found, "megabytes": getrusage(RUSAGE_SELF).ru_maxrss / 1024}, sys.stdout)


if __name__ == "__main__":
    main()
