"""`python -m bench [NAME…] [--json] [--quick]`: measures, compares, and says whether limits hold.

Exit code 1 when a figure is past its limit or a bench failed, 2 when something is missing, 0 otherwise.
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

from . import idle, lateness, overhead, peers, publish, throughput, truth, vote, year
from .by_hand import remove_what_is_left
from .node import tool_image
from .report import Measure, as_json, as_line, as_table, machine, past_limit


@dataclass(frozen=True, slots=True)
class Bench:
    """`programs` have to be on PATH; `engine`: it runs tools; `peers`: it runs the programs compared with."""

    measure: Callable[..., list[Measure]]
    programs: tuple[str, ...] = ()
    engine: bool = False
    peers: bool = False


BENCHES = {
    "overhead": Bench(overhead.measure, ("etcd", "git"), engine=True),
    "throughput": Bench(throughput.measure, ("etcd", "git"), engine=True),
    "lateness": Bench(lateness.measure, ("etcd",), peers=True),
    "idle": Bench(idle.measure, ("etcd", "git"), engine=True, peers=True),
    "publish": Bench(publish.measure, ("git", "git-lfs")),
    "vote": Bench(vote.measure),
    "truth": Bench(truth.measure),
    "year": Bench(year.measure, ("etcd", "git"), engine=True),
}
VAR = Path(__file__).resolve().parents[1] / "var"


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="The measures of DESIGN §10.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHES) + " (all)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.add_argument("--quick", action="store_true", help="fewer rounds: to try a change, not to report")
    chosen = parser.parse_args(argv)
    if unknown := set(chosen.names) - set(BENCHES):
        parser.error(f"no such bench: {', '.join(sorted(unknown))}; there are {', '.join(BENCHES)}")
    return chosen


def missing(benches: Sequence[Bench]) -> Iterator[str]:
    """What these benches need and is not here, with the next step. Installs the programs compared with."""
    for program in sorted({each for bench in benches for each in bench.programs}):
        if shutil.which(program) is None:
            yield f"{program} is not on PATH; next: make bench, which brings it"
    if any(bench.engine for bench in benches):
        if subprocess.run(["docker", "info"], capture_output=True).returncode != 0:
            yield "no Docker Engine answers; next: scripts/machine.sh engine"
            return
        try:
            tool_image()
        except RuntimeError as error:
            yield str(error)
    if any(bench.peers for bench in benches):
        try:
            peers.python()
        except subprocess.CalledProcessError as error:
            yield f"the programs compared with cannot be installed: {error}; next: see what pip printed above"


def measure(name: str, *, quick: bool) -> list[Measure]:
    """Runs one bench in a folder of its own under var/, which is removed again; prints each figure."""
    print(f"bench: measuring {name}", file=sys.stderr, flush=True)
    folder = Path(tempfile.mkdtemp(prefix=f"bench-{name}-", dir=VAR))
    try:
        found = BENCHES[name].measure(folder, quick=quick)
    finally:
        if BENCHES[name].engine:
            remove_what_is_left()
        shutil.rmtree(folder, ignore_errors=True)
    for each in found:
        print(f"bench:   {as_line(each)}", file=sys.stderr, flush=True)
    return found


def main() -> int:
    chosen = arguments()
    names = chosen.names or list(BENCHES)
    os.environ["MAO_TOOL_NETWORK_NAME"] = "mao-bench"  # of the node's tools, and of the script's
    VAR.mkdir(exist_ok=True)
    if lacking := list(missing([BENCHES[name] for name in names])):
        print("\n".join(f"bench: {each}" for each in lacking), file=sys.stderr)
        return 2
    measures: list[Measure] = []
    failed: list[str] = []
    for name in names:
        try:
            measures += measure(name, quick=chosen.quick)
        except Exception:  # noqa: BLE001 (what the others measured is printed all the same)
            traceback.print_exc()
            failed.append(name)
    print((as_json if chosen.json else as_table)(machine(), measures))
    for bad in past_limit(measures):
        print(f"bench: {bad.name} is past its limit", file=sys.stderr)
    for name in failed:
        print(f"bench: {name} failed; its traceback is above", file=sys.stderr)
    return 1 if failed or past_limit(measures) else 0


if __name__ == "__main__":
    sys.exit(main())
