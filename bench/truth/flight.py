"""Flights as 38 web sites told them, a site a node and a day a round, and the truth for a part of them.

Collected for "Truth finding on the deep web" (Li et al., VLDB 2013); see the README beside the data.
"""

from __future__ import annotations

import csv
import io
import lzma
import random
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from tests.support.evidence import find_shared_data

from bench.report import Measure
from mao_shared.models.round import FieldRule, FileRule, VoteDefinition

from .compare import compare
from .sets import Observed, TruthSet, read_csv, write_rows

KEY = "flight"
read_flights = partial(read_csv, key=KEY)
TIMES = ("scheduled_departure", "actual_departure", "scheduled_arrival", "actual_arrival")
GATES = frozenset({"departure_gate", "arrival_gate"})
MINUTES = 10
DEFAULT = VoteDefinition(files=[FileRule(key=[KEY])])
"""Nothing is declared but the key."""
TOLERANT = VoteDefinition(
    files=[
        FileRule(key=[KEY], fields={name: FieldRule(type="time", tolerance=f"{MINUTES}m") for name in TIMES})
    ]
)
OWNERS = ("aa", "ua", "co")
"""Sites of airlines, which tell few flights and these rightly."""
SUBSETS = {5: 20, 10: 20, 20: 10}
"""Number of sources -> number of random choices of so many."""
SEED = 20261130


def measure(folder: Path, *, quick: bool) -> list[Measure]:
    """Score the vote on all sources, each day on its own."""
    days = load_days(quick=quick)
    if days is None:
        return []
    sets = [
        flight_set("flight", days, goal=0.95),
        flight_set("flight, 10 min declared", days, TOLERANT, goal=0.975),
    ]
    return compare(sets, folder)


def measure_subsets(folder: Path, *, quick: bool) -> list[Measure]:
    """Score the vote without three airlines, and on random choices of sources."""
    days = load_days(quick=quick)
    if days is None:
        return []
    rest = [day.without(OWNERS) for day in days]
    name = f"flight without {', '.join(OWNERS)}"
    sets = [
        flight_set(name, rest, goal=0.96),
        flight_set(f"{name}, 10 min declared", rest, TOLERANT),
        *(choose_sources(days, count, 2 if quick else choices) for count, choices in SUBSETS.items()),
    ]
    return compare(sets, folder)


def measure_sequence(folder: Path, *, quick: bool) -> list[Measure]:
    """Score the days as rounds of one file in a git repository, so that the second knows the first."""
    days = load_days(quick=quick)
    if days is None:
        return []
    days = [with_day(day, number) for number, day in enumerate(days)]
    hybrid = DEFAULT.model_copy(update={"history": "HYBRID"})
    sets = [
        flight_set("flight, days in sequence", days),
        flight_set("flight, days in sequence, history HYBRID", days, hybrid),
    ]
    return compare([replace(observed, in_sequence=True) for observed in sets], folder)


def flight_set(
    name: str, days: Sequence[Observed], definition: VoteDefinition = DEFAULT, goal: float | None = None
) -> TruthSet:
    return TruthSet(name, days, definition, is_right, GATES, goal=goal)


def load_days(*, quick: bool = False) -> list[Observed] | None:
    """Return the days in order, `quick`: two of them; None, saying so, if the data is absent."""
    data = find_shared_data()
    if data is None:
        print("bench: flight is skipped: ../shared/data is absent")
        return None
    paths = sorted((data / "flight").glob("*.claims.csv.xz"))
    return [load_day(path) for path in (paths[:2] if quick else paths)]


def load_day(path: Path) -> Observed:
    """Read the claims and the truth of a day; each source has a file with the flights that it tells."""
    with lzma.open(path, "rt", newline="") as file:
        header, *claims = csv.reader(file)
    by_source: dict[str, list[list[str]]] = {}
    for source, *row in claims:
        by_source.setdefault(source, []).append(row)
    versions = {source: write_rows(header[1:], rows) for source, rows in sorted(by_source.items())}
    text = path.with_name(path.name.replace(".claims.csv.xz", ".truth.csv")).read_text()
    truth = {
        (row[KEY], name): value
        for row in csv.DictReader(io.StringIO(text, newline=""))
        for name, value in row.items()
        if name != KEY and value
    }
    return Observed(versions, truth, read_flights)


def is_right(name: str, found: str, wanted: str) -> bool:
    """Tell whether a time is within ten minutes, a gate equal but for leading zeros and blanks."""
    if name not in TIMES:
        return bare_gate(found) == bare_gate(wanted)
    minutes, right = minutes_of(found), minutes_of(wanted)
    if minutes is None or right is None:
        return False
    apart = abs(minutes - right)
    return min(apart, 24 * 60 - apart) <= MINUTES


def bare_gate(text: str) -> str:
    return "".join(text.split()).lstrip("0")


def minutes_of(text: str) -> int | None:
    """Return the minutes since midnight of HH:MM; None if the text is no time."""
    hours, colon, minutes = text.partition(":")
    return int(hours) * 60 + int(minutes) if colon and hours.isdigit() and minutes.isdigit() else None


def choose_sources(days: Sequence[Observed], count: int, choices: int) -> TruthSet:
    """Return days of which only `count` randomly chosen sources are known; `choices` times."""
    rng = random.Random(SEED + count)
    rounds = []
    for number in range(choices):
        day = days[number % len(days)]
        kept = set(rng.sample(sorted(day.versions), count))
        rounds.append(day.without([source for source in day.versions if source not in kept]))
    return flight_set(f"flight, {count} random sources, {choices} choices", rounds)


def with_day(day: Observed, number: int) -> Observed:
    """Return the day with its number before each flight, so that no record is of two days."""
    versions = {}
    for source, content in day.versions.items():
        header, *lines = content.decode().splitlines()
        text = "\n".join([header, *(f"{number} {line}" for line in lines)])
        versions[source] = f"{text}\n".encode()
    truth = {(f"{number} {flight}", name): value for (flight, name), value in day.truth.items()}
    return Observed(versions, truth, read_flights)
