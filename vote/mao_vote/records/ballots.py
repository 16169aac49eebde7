"""The vote on all cells of a field at once, cells decided by another rule, and plain numbers.

Ballots are a long table: `cell` (any number that identifies the cell), `text` (null: no such field), `votes`,
`weight`. Texts that are the same number, such as 1 and 1.0, are one candidate; `decide_cells` says of each
cell which candidate is chosen, and why:

    more than half of the votes                                   majority
    numbers, where most votes are for numbers (numbers.py)        tolerance, plurality, median …
    most votes                                                    plurality
    tied: what the incumbent says, else the heaviest              incumbent, weight
    still tied                                                    undecided
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING

from .numbers import decide_numeric_cells, numbers

if TYPE_CHECKING:
    from polars import DataFrame, Series

IncumbentTexts = Callable[["Series"], "Series"]
"""From cells to the texts that the ground truth has there so far; null where it has none."""
CANDIDATE = ("cell", "number", "word")
_COLUMNS = ("cell", "number", "word", "text", "other", "why", "behind", "total", "several")
COMPUTED = "computed"  # why a cell says what no version says


def with_candidates(ballots: DataFrame) -> DataFrame:
    """With `number`, or else `word`; neither: the field is missing."""
    import polars

    text = polars.col("text")
    return ballots.with_columns(numbers(ballots["text"]).alias("number")).with_columns(
        polars.when(polars.col("number").is_null()).then(text).alias("word")
    )


def decide_cells(ballots: DataFrame, error: float, incumbent: IncumbentTexts) -> DataFrame:
    """A row a cell: cell, chosen (the text), number, word, why, behind (votes), total, several.

    `ballots` as `with_candidates` gives them. `several`: whether there is more than one candidate.
    """
    import polars

    spoken = polars.col("text")
    candidates = ballots.group_by(CANDIDATE).agg(
        polars.col("votes").sum(),
        polars.col("weight").sum(),
        spoken.min().alias("text"),
        spoken.max().alias("other"),
    )
    cells = candidates.group_by("cell").agg(
        total=polars.col("votes").sum(),
        most=polars.col("votes").max(),
        numbers=polars.col("votes").filter(polars.col("number").is_not_null()).sum(),
        several=polars.len() > 1,
    )
    candidates = candidates.join(cells, on="cell")
    clear = 2 * polars.col("most") > polars.col("total")
    majority = candidates.filter(clear & (polars.col("votes") == polars.col("most"))).with_columns(
        why=polars.lit("majority"), behind=polars.col("votes")
    )
    parts = [majority, *_without_majority(candidates.filter(~clear), error, incumbent)]
    chosen = polars.concat([part.select(*_COLUMNS) for part in parts])
    return _spelled(chosen, ballots)


def _without_majority(candidates: DataFrame, error: float, incumbent: IncumbentTexts) -> list[DataFrame]:
    import polars

    if candidates.is_empty():
        return []
    cells = candidates["cell"].unique()
    said = with_candidates(polars.DataFrame({"cell": cells, "text": incumbent(cells)}))
    said = said.select("cell", said_number="number", said_word="word", was=polars.col("text").is_not_null())
    candidates = candidates.join(said, on="cell").with_columns(
        incumbent=polars.col("was")
        & polars.col("number").eq_missing(polars.col("said_number"))
        & polars.col("word").eq_missing(polars.col("said_word"))
    )
    numeric = 2 * polars.col("numbers") > polars.col("total")
    return [
        decide_numeric_cells(candidates.filter(numeric & polars.col("number").is_not_null()), error),
        _decide_words(candidates.filter(~numeric)),
    ]


def _decide_words(candidates: DataFrame) -> DataFrame:
    """The candidate with most votes; tied ones as `elect` would."""
    import polars

    leaders = candidates.filter(polars.col("votes") == polars.col("most"))
    best = leaders.sort("cell", "incumbent", "weight", descending=[False, True, True]).with_columns(
        tied=polars.len().over("cell"),
        alike=(polars.col("weight") == polars.col("weight").max().over("cell")).sum().over("cell"),
    )
    first = best.unique("cell", keep="first", maintain_order=True)
    why = (
        polars.when(polars.col("tied") == 1)
        .then(polars.lit("plurality"))
        .when("incumbent")
        .then(polars.lit("incumbent"))
        .when(polars.col("alike") == 1)
        .then(polars.lit("weight"))
        .otherwise(polars.lit("undecided"))
    )
    decided = first.with_columns(why=why, behind=polars.col("votes"))
    undecided = polars.col("why") == "undecided"
    return decided.with_columns(
        polars.when(~undecided).then(polars.col(name)).alias(name)
        for name in ("number", "word", "text", "other")
    )


def _spelled(chosen: DataFrame, ballots: DataFrame) -> DataFrame:
    """A number in the spelling that most voters use, of those the shortest, of those the first by letters."""
    import polars

    differently = chosen.filter(polars.col("text") != polars.col("other")).select("cell", "number")
    chosen = chosen.rename({"text": "chosen"}).drop("other")
    if differently.is_empty():
        return chosen
    spellings = (
        ballots.join(differently, on=["cell", "number"])
        .group_by("cell", "text")
        .agg(polars.col("votes").sum())
    )
    best = spellings.sort(
        "cell", "votes", polars.col("text").str.len_chars(), "text", descending=[False, True, False, False]
    ).unique("cell", keep="first", maintain_order=True)
    return (
        chosen.join(best.select("cell", best="text"), on="cell", how="left")
        .with_columns(chosen=polars.coalesce("best", "chosen"))
        .drop("best")
    )


@dataclass(frozen=True, slots=True)
class CellBallot:
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


Judge = Callable[[Sequence[CellBallot]], Verdict | None]
"""Decides a cell; None leaves it to the vote. What it is given is in no order that it may count on."""


def apply_judge(decided: DataFrame, ballots: DataFrame, judge: Judge) -> DataFrame:
    """`decided` (by `decide_cells`) with the judge's verdict on each cell that has several candidates."""
    import polars

    contested = ballots.join(decided.filter("several").select("cell"), on="cell").sort("cell", "version")
    rows = list(_verdicts(contested, judge))
    if not rows:
        return decided
    kept = decided.select("cell", "total", "several")
    names = ("cell", "chosen", "number", "word", "why", "behind")
    types = {name: decided.schema[name] for name in names}
    new = polars.DataFrame(rows, schema=types, orient="row").join(kept, on="cell")
    return polars.concat([decided.join(new, on="cell", how="anti"), new.select(decided.columns)])


def _verdicts(ballots: DataFrame, judge: Judge) -> Iterator[tuple[object, ...]]:
    """A row a cell that the judge decides."""
    rows = ballots.select("cell", "version", "votes", "text", "number").iter_rows()
    for cell, group in groupby(rows, key=itemgetter(0)):
        votes = [CellBallot(*row[1:]) for row in group]
        verdict = judge(votes)
        if verdict is not None:
            number, word = verdict.candidate
            behind = sum(each.votes for each in votes if each.candidate == verdict.candidate)
            yield cell, verdict.text, number, word, verdict.why, behind


def vote_numbers(
    rounds: Sequence[Sequence[float | None]], error: float
) -> list[tuple[float | None, str, bool]]:
    """Of each round the chosen value, why it is that, and whether it is contested. None: a voter is absent.

    A round in which nobody votes is undecided. Raises ValueError where a number is not finite.
    """
    import polars

    cells = [(cell, value) for cell, values in enumerate(rounds) for value in values if value is not None]
    schema = {"cell": polars.UInt32, "number": polars.Float64}
    ballots = polars.DataFrame(cells, schema=schema, orient="row")
    if not ballots["number"].is_finite().all():
        raise ValueError("only finite numbers can be voted")
    ballots = ballots.with_columns(
        number=polars.col("number") + 0.0,
        word=polars.lit(None, polars.String),
        text=polars.col("number").cast(polars.String),
        votes=polars.lit(1, polars.Int64),
        weight=polars.lit(1, polars.Int64),
    )
    decided = decide_cells(ballots, error, _no_incumbent)
    found: list[tuple[float | None, str, bool]] = [(None, "undecided", False)] * len(rounds)
    contested = 2 * polars.col("behind") <= polars.col("total")
    for cell, value, why, disputed in decided.select("cell", "number", "why", contested).iter_rows():
        found[cell] = value, why, disputed
    return found


def _no_incumbent(cells: Series) -> Series:
    import polars

    return polars.repeat(None, cells.len(), dtype=polars.String, eager=True)
