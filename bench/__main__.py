"""`python -m bench [NAME…] [--json] [--quick]`: measures, compares, and says whether limits hold.

Exit code 1 when a figure is past the limit of this stage, 0 otherwise.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from . import idle, lateness, overhead, publish, throughput, vote, year
from .by_hand import remove_what_is_left
from .report import Measure, as_json, as_table, machine, past_limit

Bench = Callable[..., list[Measure]]
BENCHES: dict[str, Bench] = {
    "overhead": overhead.measure,
    "throughput": throughput.measure,
    "lateness": lateness.measure,
    "idle": idle.measure,
    "publish": publish.measure,
    "vote": vote.measure,
    "year": year.measure,
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


def measure(name: str, *, quick: bool) -> list[Measure]:
    """Runs one bench in a folder of its own under var/, which is removed again."""
    print(f"bench: measuring {name}", file=sys.stderr, flush=True)
    VAR.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"bench-{name}-", dir=VAR))
    try:
        return BENCHES[name](folder, quick=quick)
    finally:
        remove_what_is_left()
        shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    chosen = arguments()
    os.environ["MAO_TOOL_NETWORK_NAME"] = "mao-bench"  # of the node's tools, and of the script's
    measures = [found for name in chosen.names or BENCHES for found in measure(name, quick=chosen.quick)]
    print((as_json if chosen.json else as_table)(machine(), measures))
    for bad in past_limit(measures):
        print(f"bench: {bad.name} is past its limit", file=sys.stderr)
    return 1 if past_limit(measures) else 0


if __name__ == "__main__":
    sys.exit(main())
