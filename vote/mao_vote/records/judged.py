"""Cells decided by somebody else's rule, cell by cell, in place of the vote in `ballots.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from polars import DataFrame

COMPUTED = "computed"  # why a cell says what no version says


@dataclass(frozen=True, slots=True)
class Said:
    """What a version says in a cell: the `text` there (None: no such field), and `number` if it is one."""

    version: int
    votes: int
    text: str | None
    number: float | None

    @property
    def candidate(self) -> tuple[float | None, str | None]:
        """What is voted on: texts that are the same number are one candidate."""
        return self.number, self.text if self.number is None else None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a cell is to say: a candidate that was said, or a number that nobody said, written as `text`."""

    text: str | None
    number: float | None
    why: str

    @property
    def candidate(self) -> tuple[float | None, str | None]:
        return self.number, self.text if self.number is None else None


Judge = Callable[[Sequence[Said]], Verdict | None]
"""Decides a cell; None leaves it to the vote. What it is given is in no order that it may count on."""


def judged(decided: DataFrame, ballots: DataFrame, judge: Judge) -> DataFrame:
    """`decided` (of `ballots.decide`) with the judge's verdict on each cell that has several candidates."""
    import polars

    contested = ballots.join(decided.filter("several").select("cell"), on="cell").sort("cell", "version")
    rows = [row for cell, said in _cells(contested) for row in _row(cell, said, judge(said))]
    if not rows:
        return decided
    kept = decided.select("cell", "total", "several")
    names = ("cell", "chosen", "number", "word", "why", "behind")
    types = {name: decided.schema[name] for name in names}
    new = polars.DataFrame(rows, schema=types, orient="row").join(kept, on="cell")
    return polars.concat([decided.join(new, on="cell", how="anti"), new.select(decided.columns)])


def _cells(ballots: DataFrame) -> Iterator[tuple[int, list[Said]]]:
    rows = ballots.select("cell", "version", "votes", "text", "number").iter_rows()
    for cell, said in groupby(rows, key=itemgetter(0)):
        yield cell, [Said(*each[1:]) for each in said]


def _row(cell: int, said: Sequence[Said], verdict: Verdict | None) -> Iterator[tuple[object, ...]]:
    if verdict is not None:
        number, word = verdict.candidate
        behind = sum(each.votes for each in said if each.candidate == verdict.candidate)
        yield cell, verdict.text, number, word, verdict.why, behind
