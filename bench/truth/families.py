"""Which sources of flight have the same errors: groups that the vote names, beside a list checked by hand.

`flight_pairs.csv` was made so: `python -m bench.truth.families` lists the pairs that, of the cells of the
truth in which either is wrong and both say something, have the same wrong value in more than 95 %, and in at
least 20, in a field or in all together. The fields were added after the vote had named boston, which has only
the departures of another source. The pairs were then looked at cell by cell. All but those with weather are
also equal in 99 % or more of all cells that both tell (`equal` of `both`), so that none is there by chance or
by a fault of the truth, although the wrong values of ifly, quicktrip, flightstats and world-flight-tracker
are few and told by others too. `coverage` is `same` if both answer the same flights, else `part`: one tells
only a part of what the other does, which for a rule that looks at coverage is no copy.
"""

from __future__ import annotations

import csv
import sys
from collections import Counter
from collections.abc import Collection, Sequence
from itertools import combinations
from pathlib import Path

from bench.report import Measure

from .flight import flight_set, is_right, load_days
from .made_up import COPIERS, colluding_nodes, copiers
from .sets import Observed, TruthSet, decide_each

PAIRS = Path(__file__).with_name("flight_pairs.csv")
SHARE = 0.95
LEAST = 20
ALL = "all"  # fields
ALIKE = 0.95  # of the cells that either answers, in a field that both have
Pair = tuple[str, str]


def measure(_: Path, *, quick: bool) -> list[Measure]:
    """Measure precision and recall of the pairs of nodes that the vote names as a group, in all rounds."""
    measures = [*colluding_majority(), *made_up_families()]
    days = load_days(quick=quick)
    if days is None:
        return measures
    known = read_pairs()
    alike = {pair for pair, coverage in known.items() if coverage == "same"}
    named = named_pairs(flight_set("flight", days))
    listed = [known.keys()] * len(days)
    return [
        *measures,
        precision("flight", named, listed),
        recall("flight, pairs that tell the same flights", named, [alike] * len(days), goal=0.95),
        recall("flight, all pairs", named, listed, goal=0.6),
    ]


def made_up_families() -> list[Measure]:
    measures = []
    for observed, (_, _, told) in zip(copiers(300), COPIERS, strict=True):
        named = named_pairs(observed)
        known = [families_of(part) for part in observed.rounds]
        goal = (
            0.95 if told < 1 else None
        )  # copiers that tell everything, as all others, look like honest nodes
        measures += [precision(observed.name, named, known), recall(observed.name, named, known, goal=goal)]
    return measures


def precision(about: str, named: Sequence[Collection[Pair]], known: Sequence[Collection[Pair]]) -> Measure:
    """Measure the share of the named pairs that are known; 1 if none is named."""
    right, count = count_in(named, known), sum(map(len, named))
    wrong = {
        pair for pairs, of_round in zip(named, known, strict=True) for pair in set(pairs) - set(of_round)
    }
    return Measure(
        f"truth, groups, precision: {about}",
        right / count if count else 1.0,
        "",
        judged="ours",
        goal=0.95,
        limit=0.95,
        is_lower_bound=True,
        note=f"{count} pairs named in {len(named)} rounds, not known: {sorted(wrong) or 'none'}",
    )


def recall(
    about: str, named: Sequence[Collection[Pair]], known: Sequence[Collection[Pair]], *, goal: float | None
) -> Measure:
    """Measure the share of the known pairs that are named."""
    count = sum(map(len, known))
    return Measure(
        f"truth, groups, recall: {about}",
        count_in(named, known) / count,
        "",
        judged="ours",
        goal=goal,
        limit=goal,
        is_lower_bound=True,
        note=f"{count // len(known)} known pairs a round",
    )


def count_in(named: Sequence[Collection[Pair]], known: Sequence[Collection[Pair]]) -> int:
    return sum(len(set(pairs) & set(of_round)) for pairs, of_round in zip(named, known, strict=True))


def colluding_majority() -> list[Measure]:
    """Where most nodes lie together, count what is said of honest nodes, and of two camps."""
    named = blamed = told = 0
    sets = colluding_nodes(300)
    for observed in sets:
        [part], [decision] = observed.rounds, decide_each(observed)
        honest = {node for node in part.versions if not lies(part, node)}
        camps = [note for note in decision.warnings if note.startswith("two camps")]
        told += bool(camps)
        blamed += sum(bool(honest & names_in(note)) for note in decision.warnings if note not in camps)
        named += sum(bool(honest & set(group.nodes)) for group in decision.groups)
    name = "truth, most nodes lie together:"
    return [
        Measure(f"{name} notes on honest nodes", blamed, "", judged="ours", goal=0, limit=0),
        Measure(f"{name} honest nodes that have one voice", named, "", note="groups in the evidence"),
        Measure(
            f"{name} decisions that tell of two camps, of {len(sets)}",
            told,
            "",
            judged="ours",
            goal=len(sets),
            limit=len(sets),
            is_lower_bound=True,
        ),
    ]


def names_in(note: str) -> set[str]:
    """Return the words of a note, of which some may be nodes."""
    return set(note.replace(",", " ").split())


def lies(part: Observed, node: str) -> bool:
    return any(part.claims[cell].get(node) != value for cell, value in part.truth.items())


def named_pairs(observed: TruthSet) -> list[set[Pair]]:
    """Return, for each round, the pairs of nodes that are in a group together."""
    return [
        {pair for group in decision.groups for pair in combinations(sorted(group.nodes), 2)}
        for decision in decide_each(observed)
    ]


def families_of(part: Observed) -> set[Pair]:
    """Return the pairs of nodes of a made-up round that published the same file."""
    return {
        pair
        for pair in combinations(sorted(part.versions), 2)
        if len({part.versions[node] for node in pair}) == 1
    }


def read_pairs() -> dict[Pair, str]:
    """Return the pairs that share errors, with `same` if they tell the same flights in a field, or `part`."""
    with PAIRS.open(newline="") as file:
        rows = [((row["one"], row["other"]), row["coverage"]) for row in csv.DictReader(file)]
    return {pair: "same" if (pair, "same") in rows else "part" for pair, _ in rows}


def shared_errors(days: Sequence[Observed]) -> list[dict[str, object]]:
    """Return the rows of `flight_pairs.csv`: plain counts from the claims and the truth."""
    counts: dict[tuple[str, Pair], Counter[str]] = {}
    told: Counter[tuple[str, str]] = Counter()  # cells by field and source
    for day in days:
        for (flight, name), values in day.claims.items():
            told.update((part, source) for source in values for part in (name, ALL))
            for pair in combinations(sorted(values), 2):
                one, other = (values[source] for source in pair)
                counted = compare_claims(name, one, other, day.truth.get((flight, name)))
                for part in (name, ALL):
                    counts.setdefault((part, pair), Counter()).update(counted)
    return [
        {
            "field": name,
            "one": pair[0],
            "other": pair[1],
            **{column: count[column] for column in ("same_wrong", "either_wrong", "equal", "both")},
            "coverage": "same"
            if is_alike(count["both"], *(told[name, source] for source in pair))
            else "part",
        }
        for (name, pair), count in sorted(counts.items())
        if count["either_wrong"] >= LEAST and count["same_wrong"] > SHARE * count["either_wrong"]
    ]


def compare_claims(name: str, one: str, other: str, wanted: str | None) -> list[str]:
    """Return what to count for a cell that two sources tell; `wanted`: its truth, if known."""
    counted = ["both", *(["equal"] if one == other else [])]
    if wanted is not None:
        wrong = [not is_right(name, value, wanted) for value in (one, other)]
        counted += ["either_wrong"] * any(wrong) + ["same_wrong"] * (one == other and wrong[0])
    return counted


def is_alike(both: int, one: int, other: int) -> bool:
    """Tell whether two sources answer the same cells, of which they have `one`, `other` and `both`."""
    return both >= ALIKE * (one + other - both)


def main() -> int:
    """Print the pairs as CSV."""
    days = load_days()
    if days is None:
        return 1
    rows = shared_errors(days)
    writer = csv.DictWriter(sys.stdout, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
