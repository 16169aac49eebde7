"""Time and memory of the vote on the days of flight, beside published methods; each in its own process."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from resource import RUSAGE_SELF, getrusage

from bench.report import Measure

from .flight import flight_set, load_days
from .peers import METHODS, run_methods
from .sets import decide_each


def measure(_: Path, *, quick: bool) -> list[Measure]:
    """Measure the seconds for all days and the peak memory; each method reads all fields of a day at once."""
    days = load_days(quick=quick)
    if days is None:
        return []
    argv = [sys.executable, "-m", "bench.truth.cost", *(["--quick"] if quick else [])]
    ours = json.loads(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)
    runs = {name: run_methods([flight_set("flight", days)], [name]) for name in METHODS}
    found = {name: run for name, run in runs.items() if run}
    seconds = {name: run["found"][name]["seconds"] for name, run in found.items()}
    memory = {name: run["megabytes"] for name, run in found.items()}
    note = "MAO from bytes to bytes; the others from a list of claims in memory"
    return [
        Measure(
            f"truth, flight: seconds for {len(days)} days", ours["seconds"], "s", beside=seconds, note=note
        ),
        Measure("truth, flight: peak memory", ours["megabytes"], "MB", beside=memory),
    ]


def main() -> None:
    import polars  # noqa: F401 - loaded in a voting node

    days = load_days(quick="--quick" in sys.argv) or []
    began = time.perf_counter()
    decide_each(flight_set("flight", days))
    seconds = time.perf_counter() - began
    print(json.dumps({"seconds": seconds, "megabytes": getrusage(RUSAGE_SELF).ru_maxrss / 1024}))


if __name__ == "__main__":
    main()
