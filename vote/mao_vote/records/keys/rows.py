"""Decides which records are in the result.

Records that more than half of the nodes have are. Those of fewer nodes are if so many are expected to be seen
by few (coverage.py), and not if the same nodes have far more than that. Otherwise several nodes may outvote
the others:

A record that a node lacks is a vote against it only so far as the node could have seen it. A node's coverage
is, for this vote, the share that it has of the records that most of the other nodes have. If a node with
coverage c lacks a record, that speaks against the record by -log(1 - c), and if it has one, that speaks for
it by log(c / FALSE_RECORDS); the vote against is the ratio, and at most 1. A node with all records outvotes
one with an additional record, and a node with a third of them says little by lacking one more.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log
from typing import TYPE_CHECKING, Literal

from mao_shared.models.round import Ties

from .align import Aligned
from .coverage import MIN_NODES, judge_sightings

if TYPE_CHECKING:
    from polars import DataFrame, Series

FULL_COVERAGE = 10**6
FALSE_RECORDS = 0.05  # assumed share of records that do not exist, of those that a single node reports
MIN_OTHERS = 2  # nodes, without which coverage cannot be told
LIKELY_COVERAGE = FULL_COVERAGE // 2  # from which lacking a record of the result counts as disagreement


@dataclass(frozen=True, slots=True)
class RowVote:
    """For each place: the record is `kept`, only in some versions, undecided, or decided after a tie.

    `tied`: it is kept though as many nodes lack it, and so counts against nobody. `votes`: how many nodes
    have it. `coverage`: for each version, in millionths. `notes`: in words, why
    records of few nodes are in the result; `warnings`: why they are not.
    """

    kept: Series
    partial: Series
    undecided: Series
    contested: Series
    votes: Series
    coverage: tuple[int, ...]
    tied: Series
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def vote_rows(
    aligned: Aligned,
    incumbent: Series | None,
    rule: Literal["majority", "any"] | int,
    ties: Ties = "likeliest",
) -> RowVote:
    """Decide which records are in the result: those that most nodes have of those that could have seen them.

    Ties are decided as in the previous ground truth, or by weight if there is none.

    Args:
        incumbent: over all places, whether the previous ground truth has the record.
        rule: `any`: all records; a number: those that at least so many nodes have.
        ties: `likeliest`: a record that is still tied, or new, is kept: nodes rather miss one than invent it.
    """
    import polars

    nothing = polars.repeat(0, aligned.keys.height, dtype=polars.Int64, eager=True)
    presence = [
        nothing + 1 if rows is None else rows.is_not_null().cast(polars.Int64) for rows in aligned.rows
    ]
    votes = weight = nothing
    for version, has in zip(aligned.versions, presence, strict=True):
        votes, weight = votes + has * version.votes, weight + has * version.weight
    total = sum(version.votes for version in aligned.versions)
    total_weight = sum(version.weight for version in aligned.versions)
    partial = votes < total
    coverage = tuple(_coverage(votes - has, has, total - 1) for has in presence)
    if rule != "majority":
        kept = votes >= (1 if rule == "any" else rule)
        never = kept & ~kept
        return RowVote(kept, partial, never, kept & (2 * votes <= total), votes, coverage, never)
    against = nothing
    for version, has, share in zip(aligned.versions, presence, coverage, strict=True):
        against = against + (1 - has) * (version.votes * absence_weight(share))
    tied = votes * FULL_COVERAGE == against
    wins = 2 * weight > total_weight if incumbent is None else incumbent
    undecided = tied & (2 * weight == total_weight) if incumbent is None else tied & ~tied
    kept = (votes * FULL_COVERAGE > against) | (tied & wins)
    broken = undecided if incumbent is None else tied & ~incumbent
    if ties == "open":
        broken = tied & ~tied
    kept, undecided = kept | broken, undecided & ~broken
    is_few = 2 * votes < total
    if total < MIN_NODES or not is_few.any():
        return RowVote(kept, partial, undecided, tied, votes, coverage, broken)
    observers = [
        (has, node) for version, has in zip(aligned.versions, presence, strict=True) for node in version.nodes
    ]
    sightings = judge_sightings([has for has, _ in observers], [node for _, node in observers])
    by_one = votes == 1
    outvotes = kept & ~sightings.suspect if total == MIN_NODES else kept & ~by_one & ~sightings.suspect
    settled = is_few & (by_one | sightings.accepted | sightings.suspect)
    return RowVote(
        (kept & ~is_few) | sightings.accepted | (outvotes & is_few),
        partial,
        undecided & ~settled,
        tied & ~settled,
        votes,
        coverage,
        broken & ~settled,
        sightings.notes,
        sightings.warnings,
    )


def _coverage(others: Series, has: Series, count: int) -> int:
    """Return the share that a node has of the records that most of the `count` others have, in millionths.

    It is whole if there are no such records, so that a minority cannot invent what the others fail to see.
    """
    known = 2 * others > count
    if count < MIN_OTHERS or not known.any():
        return FULL_COVERAGE
    return int((has.filter(known)).sum()) * FULL_COVERAGE // int(known.sum())


def absence_weight(coverage: int) -> int:
    """Return how much the lack of a record counts against it, in millionths of a vote."""
    share = min(coverage / FULL_COVERAGE, 0.999)
    if share <= 2 * FALSE_RECORDS:
        return coverage
    return round(min(1.0, -log(1 - share) / log(share / FALSE_RECORDS)) * FULL_COVERAGE)


def count_rows(
    aligned: Aligned, rows: RowVote, cells: list[int], differing: list[int], shared: list[int]
) -> DataFrame:
    """Count each record that only some versions have as a cell, and return these cells.

    A version that lacks the record has no vote if its coverage is low.
    """
    import polars

    places = rows.partial.arg_true()
    kept, undecided, tied = (column.gather(places) for column in (rows.kept, rows.undecided, rows.tied))
    total = sum(version.votes for version in aligned.versions)
    having = rows.votes.gather(places)
    for version, coverage in enumerate(rows.coverage):
        has = aligned.has(version, places)
        voted = has if coverage < LIKELY_COVERAGE else has | ~has
        cells[version] += int(voted.sum())
        differs = (has != kept) & ~undecided & ~tied & voted
        differing[version] += int(differs.sum())
        shared[version] += int((differs & ((has & (having > 1)) | (~has & (having < total - 1)))).sum())
    found = polars.DataFrame({"cell": places, "kept": kept, "contested": rows.contested.gather(places)})
    return found.select(
        "cell",
        polars.when("kept").then(polars.lit("row")).alias("chosen"),
        polars.lit("row").alias("why"),
        "contested",
        observed=having,
    )
