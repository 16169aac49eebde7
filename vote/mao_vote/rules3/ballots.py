"""Votes on all cells of a field at once, by the default rules or by a judge, and on plain numbers.

Ballots are a table with the columns `cell` (a number that identifies the cell), `text` (null: no such field),
`votes`, `weight`. Texts that are the same number, such as 1 and 1.0, are one candidate. `decide_cells`
chooses a candidate for each cell and gives the reason:

    more than half of the votes                                   majority
    numbers, where most votes are for numbers (numbers.py)        tolerance, plurality, median …
    most votes                                                    plurality
    tied: the incumbent's value, or else the heaviest             incumbent, weight
    still tied                                                    undecided
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING

from mao_vote.records import CellBallot, Judge

from .numbers import decide_numeric_cells, numbers

if TYPE_CHECKING:
    from polars import DataFrame, Series

IncumbentTexts = Callable[["Series"], "Series"]
"""Cells → their texts in the previous ground truth; null if it has none."""
CANDIDATE = ("cell", "number", "word")
_COLUMNS = ("cell", "number", "word", "text", "other", "why", "behind", "total", "several")


def with_candidates(ballots: DataFrame) -> DataFrame:
    """Add the columns `number` and `word`, of which one is set; both are null without the field."""
    import polars

    text = polars.col("text")
    return ballots.with_columns(numbers(ballots["text"]).alias("number")).with_columns(
        polars.when(polars.col("number").is_null()).then(text).alias("word")
    )


def decide_cells(ballots: DataFrame, error: float, incumbent: IncumbentTexts) -> DataFrame:
    """Return one row per cell: cell, chosen (the text), number, word, why, behind (votes), total, several.

    `several` is true if there is more than one candidate. `ballots` must come from `with_candidates`.
    """
    import polars

    text = polars.col("text")
    candidates = ballots.group_by(CANDIDATE).agg(
        polars.col("votes").sum(),
        polars.col("weight").sum(),
        text.min().alias("text"),
        text.max().alias("other"),
    )
    cells = candidates.group_by("cell").agg(
        total=polars.col("votes").sum(),
        most=polars.col("votes").max(),
        numbers=polars.col("votes").filter(polars.col("number").is_not_null()).sum(),
        several=polars.len() > 1,
    )
    candidates = candidates.join(cells, on="cell")
    is_majority = 2 * polars.col("most") > polars.col("total")
    majority = candidates.filter(is_majority & (polars.col("votes") == polars.col("most"))).with_columns(
        why=polars.lit("majority"), behind=polars.col("votes")
    )
    parts, disputed = [majority], candidates.filter(~is_majority)
    if not disputed.is_empty():
        places = disputed["cell"].unique()
        before = with_candidates(polars.DataFrame({"cell": places, "text": incumbent(places)}))
        before = before.select(
            "cell", old_number="number", old_word="word", exists=polars.col("text").is_not_null()
        )
        disputed = disputed.join(before, on="cell").with_columns(
            incumbent=polars.col("exists")
            & polars.col("number").eq_missing(polars.col("old_number"))
            & polars.col("word").eq_missing(polars.col("old_word"))
        )
        numeric = 2 * polars.col("numbers") > polars.col("total")
        is_number = polars.col("number").is_not_null()
        parts.append(decide_numeric_cells(disputed.filter(numeric & is_number), error))
        parts.append(_decide_texts(disputed.filter(~numeric)))
    return _restore_spelling(polars.concat([part.select(*_COLUMNS) for part in parts]), ballots)


def _decide_texts(candidates: DataFrame) -> DataFrame:
    """Choose the candidate with the most votes in each cell; ties are broken as in `elect`."""
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


def _restore_spelling(chosen: DataFrame, ballots: DataFrame) -> DataFrame:
    """Write numbers as most voters spell them; if tied, the shortest, then the first in text order."""
    import polars

    spelt_differently = chosen.filter(polars.col("text") != polars.col("other")).select("cell", "number")
    chosen = chosen.rename({"text": "chosen"}).drop("other")
    if spelt_differently.is_empty():
        return chosen
    spellings = (
        ballots.join(spelt_differently, on=["cell", "number"])
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


"""Decides a cell from its ballots, which are in no particular order; None leaves it to the default rules."""


def apply_judge(decided: DataFrame, ballots: DataFrame, judge: Judge) -> DataFrame:
    """Replace the decisions of `decide_cells` on cells with several candidates by the judge's verdicts."""
    import polars

    contested = ballots.join(decided.filter("several").select("cell"), on="cell").sort("cell", "version")
    rows = []
    by_cell = contested.select("cell", "version", "votes", "text", "number").iter_rows()
    for cell, group in groupby(by_cell, key=itemgetter(0)):
        votes = [CellBallot(*row[1:]) for row in group]
        if (verdict := judge(votes)) is not None:
            number, word = verdict.candidate
            behind = sum(ballot.votes for ballot in votes if ballot.candidate == verdict.candidate)
            rows.append((cell, verdict.text, number, word, verdict.why, behind))
    if not rows:
        return decided
    kept = decided.select("cell", "total", "several")
    names = ("cell", "chosen", "number", "word", "why", "behind")
    types = {name: decided.schema[name] for name in names}
    new = polars.DataFrame(rows, schema=types, orient="row").join(kept, on="cell")
    return polars.concat([decided.join(new, on="cell", how="anti"), new.select(decided.columns)])
