"""Votes on all cells of a field at once, by the default rules or by a judge, and on plain numbers.

Ballots are a table with the columns `cell` (a number that identifies the cell), `version`, `nodes` (how many
have this version), `votes` (their voices, see reliability.py), `weight`, `text`, and `number` or `word`, by
which values are compared. Ballots without an observation are left out. `decide_cells` chooses a value for
each cell and gives the reason:

    more than half of the voices                                  majority
    numbers, where most voices are for numbers (measures.py)      tolerance, plurality, median …
    most voices                                                   plurality
    most voices, but not of most nodes                            reliability
    tied: the incumbent's value, or else the heaviest             incumbent, weight
    still tied                                                    undecided

`break_ties` then gives cells that are undecided a value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING

from mao_vote.records.fields.time_values import HALF_DAY

from .measures import Noise, Tolerance, decide_numeric_cells
from .voices import Voices

if TYPE_CHECKING:
    from polars import DataFrame, Expr, Series

IncumbentValues = Callable[["Series"], "DataFrame"]
"""Cells → their number and word in the previous ground truth; both null if it has none."""
CANDIDATE = ("cell", "number", "word")
_COLUMNS = (
    "cell",
    "number",
    "word",
    "text",
    "other",
    "why",
    "behind",
    "nodes",
    "total_nodes",
    "most_nodes",
    "leaders",
    "several",
)
COMPUTED = "computed"  # the reason for a value that no version has


def decide_cells(
    ballots: DataFrame, noise: Noise, incumbent: IncumbentValues, *, tied_numbers: bool = True
) -> DataFrame:
    """Return one row per cell: cell, chosen (the text), number, word, why, behind (nodes), total, several.

    `several` is true if there is more than one candidate, `total` is the number of nodes that observed the
    cell.

    Args:
        tied_numbers: numbers may tie; otherwise the median is taken.
    """
    import polars

    text = polars.col("text")
    candidates = ballots.group_by(CANDIDATE).agg(
        polars.col("votes").sum(),
        polars.col("nodes").sum(),
        polars.col("weight").sum(),
        text.min().alias("text"),
        text.max().alias("other"),
    )
    cells = candidates.group_by("cell").agg(
        total=polars.col("votes").sum(),
        most=polars.col("votes").max(),
        total_nodes=polars.col("nodes").sum(),
        most_nodes=polars.col("nodes").max(),
        leaders=(polars.col("nodes") == polars.col("nodes").max()).sum(),
        numbers=polars.col("votes").filter(polars.col("number").is_not_null()).sum(),
        several=polars.len() > 1,
    )
    candidates = candidates.join(cells, on="cell")
    is_majority = 2 * polars.col("most") > polars.col("total")
    majority = candidates.filter(is_majority & (polars.col("votes") == polars.col("most"))).with_columns(
        why=polars.lit("majority"), behind=polars.col("nodes")
    )
    parts, disputed = [majority], candidates.filter(~is_majority)
    if not disputed.is_empty():
        disputed = disputed.join(_incumbents(disputed, incumbent), on="cell").with_columns(
            incumbent=polars.col("exists")
            & polars.col("number").eq_missing(polars.col("old_number"))
            & polars.col("word").eq_missing(polars.col("old_word"))
        )
        numeric = 2 * polars.col("numbers") > polars.col("total")
        is_number = polars.col("number").is_not_null()
        parts.append(decide_numeric_cells(disputed.filter(numeric & is_number), noise, may_tie=tied_numbers))
        parts.append(_decide_texts(disputed.filter(~numeric)))
    decided = polars.concat([part.select(*_COLUMNS) for part in parts]).with_columns(why=_reason())
    return _restore_spelling(
        decided.rename({"total_nodes": "total"}).drop("nodes", "most_nodes", "leaders"), ballots
    )


def _incumbents(disputed: DataFrame, incumbent: IncumbentValues) -> DataFrame:
    """Return for each cell the candidate of the previous ground truth: old_number, old_word, exists."""
    import polars

    places = disputed.group_by("cell").agg(latest=polars.col("number").max()).sort("cell")
    before = places.hstack(incumbent(places["cell"]))
    number = polars.col("number")
    return before.select(
        "cell",
        # times of the day after midnight count on from the day before, as in `unwrapped`
        old_number=polars.when((polars.col("latest") >= 2 * HALF_DAY) & (number < HALF_DAY))
        .then(number + 2 * HALF_DAY)
        .otherwise(number),
        old_word="word",
        exists=number.is_not_null() | polars.col("word").is_not_null(),
    )


def _reason() -> Expr:
    """Correct the reason by the number of nodes, where a majority or plurality is one of voices only."""
    import polars

    why, nodes = polars.col("why"), polars.col("nodes")
    is_most = (nodes == polars.col("most_nodes")) & (polars.col("leaders") == 1)
    return (
        polars.when(~why.is_in(["majority", "plurality"]) | (2 * nodes > polars.col("total_nodes")))
        .then(polars.when(why == "plurality").then(polars.lit("majority")).otherwise(why))
        .when(is_most)
        .then(polars.lit("plurality"))
        .otherwise(polars.lit("reliability"))
    )


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
    decided = first.with_columns(why=why, behind=polars.col("nodes"))
    undecided = polars.col("why") == "undecided"
    return decided.with_columns(
        polars.when(~undecided).then(polars.col(name)).alias(name)
        for name in ("number", "word", "text", "other")
    )


def break_ties(decided: DataFrame, ballots: DataFrame, voices: Voices) -> DataFrame:
    """Give undecided cells the value, of those that are tied, whose nodes are right more often elsewhere.

    Where that is not known, the lowest number or the first text. The reason is `tie`.
    """
    import polars

    is_open = polars.col("why") == "undecided"
    undecided = decided.filter(is_open).select("cell")
    if undecided.is_empty():
        return decided
    cast = voices.lean(ballots.join(undecided, on="cell"))
    is_number, votes = polars.col("number").is_not_null(), polars.col("votes")
    has_numbers = 2 * votes.filter(is_number).sum().over("cell") > votes.sum().over("cell")
    candidates = (
        cast.filter(is_number | ~has_numbers)
        .group_by(CANDIDATE)
        .agg(
            polars.col("votes", "nodes", "weight", "leaning").sum(),
            text=polars.col("text").min(),
            other=polars.col("text").max(),
        )
    )
    order = ("votes", "weight", "leaning")
    texts = ("number", "text", "word")
    best = candidates.sort(
        "cell", *order, *texts, descending=[False, *(True for _ in order), *(False for _ in texts)]
    ).unique("cell", keep="first", maintain_order=True)
    broken = best.join(decided.select("cell", "total", "several"), on="cell").with_columns(
        why=polars.lit("tie"), behind=polars.col("nodes")
    )
    chosen = _restore_spelling(
        broken.select("cell", "number", "word", "text", "other", "why", "behind", "total", "several"), ballots
    )
    return polars.concat([decided.filter(~is_open), chosen.select(decided.columns)])


def _restore_spelling(chosen: DataFrame, ballots: DataFrame) -> DataFrame:
    """Write values as most nodes spell them; if tied, the shortest, then the first in text order."""
    import polars

    spelt_differently = chosen.filter(polars.col("text") != polars.col("other")).select(*CANDIDATE)
    chosen = chosen.rename({"text": "chosen"}).drop("other")
    if spelt_differently.is_empty():
        return chosen
    spellings = (
        ballots.join(spelt_differently, on=CANDIDATE, nulls_equal=True)
        .group_by("cell", "text")
        .agg(polars.col("nodes").sum())
    )
    best = spellings.sort(
        "cell", "nodes", polars.col("text").str.len_chars(), "text", descending=[False, True, False, False]
    ).unique("cell", keep="first", maintain_order=True)
    return (
        chosen.join(best.select("cell", best="text"), on="cell", how="left")
        .with_columns(chosen=polars.coalesce("best", "chosen"))
        .drop("best")
    )


@dataclass(frozen=True, slots=True)
class CellBallot:
    """A version's value of a cell: its `text`, and the `number` if it is compared as one."""

    version: int
    votes: int
    text: str | None
    number: float | None
    word: str | None = None

    @property
    def candidate(self) -> tuple[float | None, str | None]:
        """The number, otherwise the word or text: texts that are the same number are one candidate."""
        if self.number is not None:
            return self.number, None
        return None, self.text if self.word is None else self.word


@dataclass(frozen=True, slots=True)
class Verdict:
    """A decision on a cell: one of the candidates, or a computed number that is written as `text`."""

    text: str | None
    number: float | None
    why: str

    @property
    def candidate(self) -> tuple[float | None, str | None]:
        return self.number, self.text if self.number is None else None


Judge = Callable[[Sequence[CellBallot]], Verdict | None]
"""Decides a cell from its ballots, which are in no particular order; None leaves it to the default rules."""


def apply_judge(
    decided: DataFrame,
    ballots: DataFrame,
    judge: Judge,
    agree: Callable[[float, float], bool],
    *,
    keep_majority: bool = False,
    keep_agreeing: bool = False,
) -> DataFrame:
    """Replace the decisions of `decide_cells` on cells with several candidates by the judge's verdicts.

    Args:
        agree: returns whether two numbers agree.
        keep_majority: a verdict against the value with which more than half of the nodes or voices agree is
            void, so that a minority with a good history cannot win.
        keep_agreeing: a number that agrees with the one decided does not replace it.
    """
    import polars

    names = ("cell", "chosen", "number", "word", "why", "behind")
    contested = decided.filter("several")
    defaults = {row[0]: row[1:] for row in contested.select(*names, "total").iter_rows()}
    cast = ballots.join(contested.select("cell"), on="cell").sort("cell", "version")
    rows = []
    by_cell = cast.select("cell", "version", "nodes", "text", "number", "word").iter_rows()
    for cell, group in groupby(by_cell, key=itemgetter(0)):
        votes = [CellBallot(*row[1:]) for row in group]
        if (verdict := judge(votes)) is None:
            continue
        word = next((ballot.candidate[1] for ballot in votes if ballot.text == verdict.text), None)
        number = verdict.number
        _, default_number, default_word, why, behind, total = defaults[cell]
        if verdict.why != COMPUTED and (keep_majority or keep_agreeing):
            is_same = (number, word) == (default_number, default_word)
            if number is not None and default_number is not None:
                is_same = agree(number, default_number)
                if is_same and keep_agreeing:
                    continue
            is_clear = 2 * behind > total or why == "reliability"
            if keep_majority and is_clear and not is_same:
                continue
        supporters = sum(ballot.votes for ballot in votes if ballot.candidate == (number, word))
        rows.append((cell, verdict.text, number, word if number is None else None, verdict.why, supporters))
    if not rows:
        return decided
    kept = decided.select("cell", "total", "several")
    types = {name: decided.schema[name] for name in names}
    new = polars.DataFrame(rows, schema=types, orient="row").join(kept, on="cell")
    return polars.concat([decided.join(new, on="cell", how="anti"), new.select(decided.columns)])


def vote_numbers(
    rounds: Sequence[Sequence[float | None]], error: float
) -> list[tuple[float | None, str, bool]]:
    """Return for each round the chosen value, the reason, and whether it is contested.

    None is an absent voter; a round without voters is undecided. Raises ValueError if a number is not
    finite.
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
        nodes=polars.lit(1, polars.Int64),
        weight=polars.lit(1, polars.Int64),
    )

    def no_incumbent(cells: Series) -> DataFrame:
        return polars.DataFrame(
            {"number": [None] * cells.len(), "word": [None] * cells.len()},
            schema={"number": polars.Float64, "word": polars.String},
        )

    decided = decide_cells(ballots, Noise(Tolerance(relative=error)), no_incumbent, tied_numbers=False)
    found: list[tuple[float | None, str, bool]] = [(None, "undecided", False)] * len(rounds)
    contested = 2 * polars.col("behind") <= polars.col("total")
    for cell, value, why, disputed in decided.select("cell", "number", "why", contested).iter_rows():
        found[cell] = value, why, disputed
    return found
