"""Run benchmarks and check their limits: `python -m bench [NAME…] [--json] [--quick] [--alone]`.

`truth` runs all of `truth/figure7`, `truth/flight` and so on, but for `truth/repeated`, which takes long.
Exit code 1 if a figure exceeds its limit or a benchmark failed, 2 if a program is missing, 0 otherwise.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import detector, idle, lateness, overhead, peers, publish, throughput, today, vote, year
from .by_hand import remove_leftovers
from .node import tool_image
from .report import Measure, as_json, as_line, as_table, machine, past_limit
from .truth import (
    cost,
    families,
    figure7,
    flight,
    lookalikes,
    made_up,
    measured,
    published,
    repeated,
    structure,
)
from .truth.peers import ALONE


@dataclass(frozen=True, slots=True)
class Bench:
    """A benchmark. `programs`: required on PATH; `engine`: runs tools; `peers`: runs other programs.

    `is_long`: runs only if its own name is given.
    """

    measure: Callable[..., list[Measure]]
    programs: tuple[str, ...] = ()
    engine: bool = False
    peers: bool = False
    is_long: bool = False


BENCHES = {
    "overhead": Bench(overhead.measure, ("etcd", "git"), engine=True),
    "throughput": Bench(throughput.measure, ("etcd", "git"), engine=True),
    "lateness": Bench(lateness.measure, ("etcd",), peers=True),
    "idle": Bench(idle.measure, ("etcd", "git"), engine=True, peers=True),
    "publish": Bench(publish.measure, ("git", "git-lfs")),
    "vote": Bench(vote.measure),
    "detector": Bench(detector.measure),
    "truth/figure7": Bench(figure7.measure),
    "truth/published": Bench(published.measure),
    "truth/flight": Bench(flight.measure),
    "truth/flight-subsets": Bench(flight.measure_subsets),
    "truth/flight-sequence": Bench(flight.measure_sequence, ("git",)),
    "truth/cost": Bench(cost.measure),
    "truth/families": Bench(families.measure),
    "truth/made-up": Bench(made_up.measure),
    "truth/measured": Bench(measured.measure),
    "truth/history": Bench(made_up.measure_history, ("git",)),
    "truth/structure": Bench(structure.measure),
    "truth/lookalikes": Bench(lookalikes.measure),
    "today": Bench(today.measure, ("etcd", "git"), engine=True),
    "truth/repeated": Bench(repeated.measure, ("git",), is_long=True),
    "year": Bench(year.measure, ("etcd", "git"), engine=True),
}
VAR = Path(__file__).resolve().parents[1] / "var"


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Run the benchmarks.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHES) + " (all)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.add_argument("--quick", action="store_true", help="run fewer rounds, for development only")
    parser.add_argument("--alone", action="store_true", help="truth: no earlier rules, no published methods")
    chosen = parser.parse_args(argv)
    groups = {name.partition("/")[0] for name in BENCHES}
    if unknown := set(chosen.names) - set(BENCHES) - groups:
        parser.error(f"unknown benchmark {', '.join(sorted(unknown))}; choose from {', '.join(BENCHES)}")
    chosen.names = [
        name
        for name, bench in BENCHES.items()
        if name in chosen.names
        or not (bench.is_long or (chosen.names and name.partition("/")[0] not in chosen.names))
    ]
    return chosen


def missing(benches: Sequence[Bench]) -> Iterator[str]:
    """Yield the missing requirements with the next step; installs the programs to compare with."""
    for program in sorted({program for bench in benches for program in bench.programs}):
        if shutil.which(program) is None:
            yield f"{program} is not on PATH; next: make bench, which installs it"
    if any(bench.engine for bench in benches):
        if subprocess.run(["docker", "info"], capture_output=True).returncode != 0:
            yield "Docker does not answer; next: scripts/machine.sh engine"
            return
        try:
            tool_image()
        except RuntimeError as error:
            yield str(error)
    if any(bench.peers for bench in benches):
        try:
            peers.python()
        except subprocess.CalledProcessError as error:
            yield f"the programs to compare with cannot be installed: {error}; next: see pip's output above"


def measure(name: str, *, quick: bool) -> list[Measure]:
    """Run one benchmark in a temporary folder under var/ and print its figures."""
    print(f"bench: measuring {name}", file=sys.stderr, flush=True)
    folder = Path(tempfile.mkdtemp(prefix=f"bench-{name.replace('/', '-')}-", dir=VAR))
    try:
        measures = BENCHES[name].measure(folder, quick=quick)
    finally:
        if BENCHES[name].engine:
            remove_leftovers()
        shutil.rmtree(folder, ignore_errors=True)
    for figure in measures:
        print(f"bench:   {as_line(figure)}", file=sys.stderr, flush=True)
    return measures


def main() -> int:
    chosen = arguments()
    names = chosen.names
    os.environ["MAO_TOOL_NETWORK_NAME"] = "mao-bench"  # for the tools of the node and of the script
    if chosen.alone:
        os.environ[ALONE] = "yes"
    VAR.mkdir(exist_ok=True)
    if problems := list(missing([BENCHES[name] for name in names])):
        print("\n".join(f"bench: {problem}" for problem in problems), file=sys.stderr)
        return 2
    measures: list[Measure] = []
    failed: list[str] = []
    for name in names:
        try:
            measures += measure(name, quick=chosen.quick)
        except Exception:  # noqa: BLE001 (the other figures are printed anyway)
            traceback.print_exc()
            failed.append(name)
    print((as_json if chosen.json else as_table)(machine(), measures))
    for figure in past_limit(measures):
        print(f"bench: {figure.name} exceeds its limit", file=sys.stderr)
    for name in failed:
        print(f"bench: {name} failed, see the traceback above", file=sys.stderr)
    return 1 if failed or past_limit(measures) else 0


if __name__ == "__main__":
    sys.exit(main())
