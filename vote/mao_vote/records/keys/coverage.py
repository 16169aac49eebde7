"""Tells records that few nodes saw from records that few nodes made up, by how much of all each node sees.

If nodes see records independently of each other, each with a probability of its own, its coverage, then the
number of records that exactly k of them see follows from the number that more than k see (as ecologists count
animals by capture and recapture: D. L. Otis et al., Wildlife Monographs 62, 1978). Of several nodes, records
that these have alone are accepted as long as so many are expected. If there are more, the surplus is divided
among the sets of nodes that have more than expected; records of a set of which more than two thirds are
surplus are not accepted.

Of a single node, the expected number follows from the records that it shares with others, and the probability
that none of the others sees a record. The latter is estimated from the others alone: a node that by chance
shares little with them would otherwise seem to be one of many that each see little, and itself to see less.

Records of a single node are left out if they are many times as many as expected. They may be several times as
many, since sources are not independent: those that see little see what all see, or a region of their own, so
that a node that sees more has more alone than its coverage tells. (Of random sources of the flight data, one
in three has more than twice as many; leaving them out was worse than keeping all.) With few records coverage
is a guess, so a node may have more by the standard error of that guess. Where the others see nearly all,
nothing is expected of one alone, and a single record is too many.

The arithmetic is of integers, or of the quotient of two, so that the order of nodes and the platform have no
effect.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import combinations
from math import isqrt, prod
from operator import add
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from polars import Series

WHOLE = 10**6
MIN_NODES = 3  # without which coverage cannot be told
MAX_SURPLUS = 4  # times as many records as expected that a single node may have alone
MIN_EXPECTED = 0.28  # records of it; if fewer are, it may have none
STANDARD_ERRORS = 2.5  # by which the expected number may be too low
_MAX_NAMED_SETS = 3
_PATTERN, _RECORDS, _ACCEPTED, _SUSPECT = "pattern", "records", "accepted", "suspect"


@dataclass(frozen=True, slots=True)
class Sightings:
    """What coverage says about the records of fewer than half of the nodes, by place; False for others.

    `accepted`: that so many are seen by few is expected. `suspect`: so many are not, even by chance.
    `notes`, `warnings`: in words, on these records and on those of suspect nodes.
    """

    accepted: Series
    suspect: Series
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Group:
    """The records that just these nodes have. `expected`: how many are expected, see _Level.

    Of a single node also, in millionths: `error` of that number, as a fraction of it, and `overall`, how many
    records the coverage of all nodes, itself included, lets expect.
    """

    pattern: str
    nodes: tuple[int, ...]
    records: int
    expected: int
    error: int = 0
    overall: int = 0


@dataclass(frozen=True, slots=True)
class _Alone:
    """How many records are expected of each node alone, in millionths, and the errors as of _Group."""

    expected: Sequence[int]
    errors: Sequence[int]


def estimate_coverage(presence: Sequence[Series]) -> list[int]:
    """Return which part of all records each node has, in millionths.

    It is the upper median of its parts of each other node's records, so that records that a minority makes up
    do not count.

    Args:
        presence: for each of at least two nodes, by place: 1 if it has the record, else 0.
    """
    found = []
    for node, own in enumerate(_parts(presence)):
        parts = sorted(part for other, part in enumerate(own) if other != node)
        found.append(parts[len(parts) // 2])
    return found


def _parts(presence: Sequence[Series]) -> list[list[int]]:
    """Return for each node its part of each node's records, in millionths."""
    count = len(presence)
    sizes = [int(has.sum()) for has in presence]
    parts = [[WHOLE] * count for _ in presence]
    for one, other in combinations(range(count), 2):
        common = int((presence[one] * presence[other]).sum())
        for node, of in ((one, other), (other, one)):
            if sizes[of]:
                parts[node][of] = common * WHOLE // sizes[of]
    return parts


def _expect_alone(presence: Sequence[Series]) -> _Alone:
    """Return how many records are expected of each node alone, by the coverage that the others have.

    If others lack a record with probability q, a node with n records that others have too is expected to have
    (n + 1) * q / (1 - q) more (if all numbers of records are as likely before).

    Args:
        presence: as of `estimate_coverage`, of at least three nodes.
    """
    count, parts, seen = len(presence), _parts(presence), reduce(add, presence)
    total, whole = int((seen > 0).sum()), WHOLE ** (count - 1)
    ordered = [
        sorted((part, other) for other, part in enumerate(own) if other != node)
        for node, own in enumerate(parts)
    ]
    places = [{other: place for place, (_, other) in enumerate(own)} for own in ordered]
    expected, errors = [], []
    for node, has in enumerate(presence):
        lacking, variance = 1, 0
        for other in range(count):
            if other != node:
                share = _median_without(places[other][node], ordered[other])
                lacking *= WHOLE - share
                variance += share * WHOLE // max(WHOLE - share, 1)
        alone = int((has * (seen == 1)).sum())
        shared = int(has.sum()) - alone
        found = (shared + 1) * lacking * WHOLE // max(whole - lacking, 1)
        expected.append(min(found, total * WHOLE))
        errors.append(isqrt(variance * WHOLE // max(total - alone, 1)))
    return _Alone(expected, errors)


def _median_without(place: int, ordered: Sequence[tuple[int, int]]) -> int:
    """Return the median of the parts but for the one at a place."""
    last = len(ordered) - 2
    low, high = (ordered[at + (at >= place)][0] for at in (last // 2, (last + 1) // 2))
    return (low + high) // 2


def judge_sightings(presence: Sequence[Series], names: Sequence[str]) -> Sightings:
    """Judge the records that fewer than half of the nodes have.

    Args:
        presence: for each node, by place: 1 if it has the record, else 0.
        names: the nodes.
    """
    import polars

    count = len(presence)
    coverage = estimate_coverage(presence)
    chances = _chances(coverage)
    seen = reduce(add, presence)
    marks = polars.DataFrame([has.alias(str(number)) for number, has in enumerate(presence)])
    places = marks.select(polars.concat_str(polars.all()).alias(_PATTERN))
    is_few = (2 * seen < count) & (seen > 0)
    patterns = places.filter(is_few)[_PATTERN].value_counts(name=_RECORDS).sort(_PATTERN)
    alone = _expect_alone(presence)
    levels: dict[int, list[_Group]] = {}
    for pattern, records in patterns.iter_rows():
        nodes = tuple(at for at, mark in enumerate(pattern) if mark == "1")
        lacking = prod(WHOLE - share for at, share in enumerate(coverage) if at not in nodes)
        expected = int((seen > len(nodes)).sum()) * lacking * prod(coverage[at] for at in nodes)
        group = _Group(pattern, nodes, records, expected)
        if len(nodes) == 1:
            overall = expected * WHOLE // max(sum(chances[2:]), 1)
            group = replace(
                group, expected=alone.expected[nodes[0]], error=alone.errors[nodes[0]], overall=overall
            )
        levels.setdefault(len(nodes), []).append(group)
    judged: list[tuple[str, bool, bool]] = []
    notes: list[str] = []
    warnings: list[str] = []
    for few, groups in sorted(levels.items()):
        level = (
            _Level(groups, sum(alone.expected), WHOLE)
            if few == 1
            else _Level(groups, int((seen > few).sum()) * chances[few], max(sum(chances[few + 1 :]), 1))
        )
        verdicts = level.judge()
        judged += [(group.pattern, *verdict) for group, verdict in zip(groups, verdicts, strict=True)]
        notes += _describe_accepted(level, verdicts, coverage)
        warnings += _describe_suspects(level, verdicts, names)
    schema = {_PATTERN: polars.String, _ACCEPTED: polars.Boolean, _SUSPECT: polars.Boolean}
    known = polars.DataFrame(judged, schema=schema, orient="row")
    found = places.join(known, on=_PATTERN, how="left", maintain_order="left")
    accepted, suspect = (found[name].fill_null(value=False) for name in (_ACCEPTED, _SUSPECT))
    return Sightings(accepted, suspect, tuple(notes), tuple(warnings))


def _chances(coverage: Sequence[int]) -> list[int]:
    """Return the probability that 0, 1, 2 … nodes see a record, in parts of WHOLE ** nodes."""
    chances = [1]
    for share in coverage:
        lacks = [chance * (WHOLE - share) for chance in chances]
        has = [chance * share for chance in chances]
        chances = [one + other for one, other in zip([*lacks, 0], [0, *has], strict=True)]
    return chances


@dataclass(frozen=True, slots=True)
class _Level:
    """The records that equally many nodes have, by the set of these.

    `expected`: how many are expected of all sets together; it and those of the groups are in parts of which
    `unit` make one record.
    """

    groups: Sequence[_Group]
    expected: int
    unit: int

    @property
    def records(self) -> int:
        return sum(group.records for group in self.groups)

    def judge(self) -> list[tuple[bool, bool]]:
        """Return for each group whether its records are accepted, and whether they are suspect."""
        excess = max(self.records * self.unit - self.expected, 0)
        own = [max(group.records * self.unit - group.expected, 0) for group in self.groups]
        all_own = sum(own)
        found = []
        for group, part in zip(self.groups, own, strict=True):
            if len(group.nodes) > 1:  # never suspect: sources of one region or kind have much in common
                found.append((3 * excess * part <= 2 * group.records * self.unit * all_own, False))
            else:
                has_many = self._has_many(group, group.records)
                found.append((not has_many, has_many and self._has_many(group, group.records - 1)))
        return found

    def _has_many(self, group: _Group, records: int) -> bool:
        """True if so many records of a single node are many times as many as expected.

        That the other groups have more than expected too shows that some records are easier to see than
        others.
        """
        others, expected = self.records - group.records, self.expected - group.expected
        ratio = others * self.unit / expected if self.unit <= expected < others * self.unit else 1.0
        most = MAX_SURPLUS * group.expected / self.unit * (1 + STANDARD_ERRORS * group.error / WHOLE)
        return records > most * ratio or (records > 0 and group.overall < MIN_EXPECTED * WHOLE / ratio)


def _describe_accepted(
    level: _Level, verdicts: Sequence[tuple[bool, bool]], coverage: Sequence[int]
) -> Iterator[str]:
    """Say how many records of few nodes are accepted, and why."""
    few = len(level.groups[0].nodes)
    kept = sum(group.records for group, (accepted, _) in zip(level.groups, verdicts, strict=True) if accepted)
    if kept:
        typical = sorted(coverage)[len(coverage) // 2]
        yield (
            f"rows: {kept} of {level.records} records that only {few} of {len(coverage)} have are kept: "
            f"nodes see about {_percent(typical)} % of the records here, so about "
            f"{_rounded(level.expected, level.unit)} such records are expected"
        )


def _describe_suspects(
    level: _Level, verdicts: Sequence[tuple[bool, bool]], names: Sequence[str]
) -> Iterator[str]:
    """Say who has more records of few nodes than chance explains."""
    suspects = sorted(
        (-group.records, sorted(names[at] for at in group.nodes), min(group.expected, group.overall))
        for group, (_, suspect) in zip(level.groups, verdicts, strict=True)
        if suspect
    )
    for records, nodes, expected in suspects[:_MAX_NAMED_SETS]:
        yield (
            f"{' and '.join(nodes)} alone {'has' if len(nodes) == 1 else 'have'} {-records} records, which "
            f"are left out: about {_rounded(expected, level.unit)} such records are expected"
        )


def _percent(share: int) -> int:
    return (100 * share + WHOLE // 2) // WHOLE


def _rounded(number: int, unit: int) -> int:
    return (2 * number + unit) // (2 * unit)
