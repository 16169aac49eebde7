"""The vote on the cells of one field, all cells at once.

Ballots are a long table: `cell` (any number that tells cells apart), `text` (null: no such field), `votes`,
`weight`. Texts that are the same number, such as 1 and 1.0, are one candidate; `decide` says of each
cell which candidate is chosen, and why:

    more than half of the votes                                   majority
    numbers, where most votes are for numbers (`spread.py`)       tolerance, plurality, median …
    most votes                                                    plurality
    tied: what the incumbent says, else the heaviest              incumbent, weight
    still tied                                                    undecided
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from .numbers import numbers
from .spread import decide_numbers

if TYPE_CHECKING:
    from polars import DataFrame, Series

Incumbent = Callable[["Series"], "Series"]
"""From cells to the texts that the ground truth has there so far; null where it has none."""

CANDIDATE = ("cell", "number", "word")


def with_candidates(ballots: DataFrame) -> DataFrame:
    """With `number`, or else `word`; neither: the field is missing."""
    import polars

    text = polars.col("text")
    return ballots.with_columns(numbers(ballots["text"]).alias("number")).with_columns(
        polars.when(polars.col("number").is_null()).then(text).alias("word")
    )


def decide(ballots: DataFrame, error: float, incumbent: Incumbent) -> DataFrame:
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


_COLUMNS = ("cell", "number", "word", "text", "other", "why", "behind", "total", "several")


def _without_majority(candidates: DataFrame, error: float, incumbent: Incumbent) -> list[DataFrame]:
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
        decide_numbers(candidates.filter(numeric & polars.col("number").is_not_null()), error),
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
