"""Published methods beside the vote: crowd-kit and truthdiscovery, each run on the same claims."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.peers import python

from .sets import Found, Score, TruthSet, score

HERE = Path(__file__).resolve().parent
ALONE = "MAO_BENCH_ALONE"
"""Environment variable; if set, the vote is compared with nothing that takes long."""
SCRIPT = HERE / "peers_run.py"
METHODS = (
    "MajorityVote",
    "Wawa",
    "TruthFinder",
    "Sums",
    "AverageLog",
    "Investment",
    "PooledInvestment",
)


@functools.cache
def interpreter() -> str | None:
    """Return the interpreter of the methods' environment; None, saying so, if it cannot be installed."""
    if ALONE in os.environ:
        return None
    try:
        return python("bench-truth-peers", HERE / "peers.lock")
    except subprocess.CalledProcessError as error:
        print(f"bench: the methods to compare with cannot be installed: {error}; MAO alone", file=sys.stderr)
        return None


def run_methods(sets: Sequence[TruthSet], names: Sequence[str] = METHODS) -> dict[str, Any]:
    """Run methods on the scored rounds of sets; see peers_run.py. Empty if they are not installed."""
    program = interpreter()
    if program is None:
        return {}
    claims = {
        "sets": [[as_claims(observed, number) for number in range(len(observed.scored))] for observed in sets]
    }
    done = subprocess.run(
        [program, str(SCRIPT), *names], input=json.dumps(claims), capture_output=True, text=True
    )
    if done.returncode != 0:
        raise RuntimeError(f"the methods to compare with failed:\n{done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def as_claims(observed: TruthSet, number: int) -> dict[str, Any]:
    part = observed.scored[number]
    claims = [(node, *cell, value) for cell, values in part.claims.items() for node, value in values.items()]
    return {"claims": claims, "asked": asked(observed, number)}


def asked(observed: TruthSet, number: int) -> list[tuple[str, str]]:
    part = observed.scored[number]
    return [cell for cell in part.truth if cell in part.claims]


def score_methods(sets: Sequence[TruthSet]) -> list[dict[str, Score]]:
    """Return the scores of each method on each set: the better one of whole rounds and single fields.

    Sets with the same rounds, which differ by their definition, are run once.
    """
    distinct = list({id(observed.rounds): observed for observed in sets}.values())
    places = {id(observed.rounds): place for place, observed in enumerate(distinct)}
    answers = run_methods(distinct).get("found", {})
    return [
        {
            name: max(
                (
                    score(observed, as_found(observed, answer[how][places[id(observed.rounds)]]))
                    for how in ("whole", "field")
                ),
                key=lambda result: result.share,
            )
            for name, answer in answers.items()
        }
        for observed in sets
    ]


def as_found(observed: TruthSet, rounds: Sequence[Sequence[str]]) -> list[Found]:
    return [
        {cell: value for cell, value in zip(asked(observed, number), values, strict=True) if value}
        for number, values in enumerate(rounds)
    ]
