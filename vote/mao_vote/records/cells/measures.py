"""Votes on numbers without a majority: the noise of a field, and the choice within it.

A field of numbers is *exact* or *measured*. In an exact field, observers of the same thing report the same
number; in a measured one, each reports its own. `estimate_noise` decides this from the field itself, and how
far apart two numbers may be and still agree (the tolerance).

`candidates` of a vote is a long table with one row per distinct number of a cell: cell, number, votes
(voices, see reliability.py), nodes (how many have it), weight, incumbent (it is the value in the previous
ground truth), total (voices on the cell), and further columns. The rules are tried in this order:

    tolerance   the largest group in which each number agrees with each, if it has more than half of the
                voices, or if it has two nodes and the tolerance is declared or the field is measured. In a
                measured field its number nearest to the middle of the group, otherwise the most frequent
                one; if tied, the incumbent, or else the one nearest to the middle
    plurality   in an exact field the most frequent number, if two nodes have it. Not if it may have noise and
                is far from a narrow range with more than half of the voices
    tied        there are only two numbers, or in an exact field several are most frequent, each of two nodes:
                by incumbent or weight, otherwise undecided. If numbers may have noise, only if all voices are
                for those that are tied
    median      the lower median; with seven nodes or more, the number nearest to the middle of their spread
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from mao_vote.records.fields.types import FieldType

from .memory import ENOUGH_CELLS, Recalled

if TYPE_CHECKING:
    from polars import DataFrame, Expr

MIN_SPREAD_NODES = 7  # with more, the ends of the spread estimate the middle better than the median
MIN_NOISE_CELLS = 4  # in which nodes differ; with fewer, their noise cannot be estimated
MIN_NOISE_NODES = 3  # that observe a cell: of two, neither can be told to be right nor to share its number
MIN_INTEGER_CELLS = 8  # the same for integers and times, which are more often exact
ASSUMED_ERROR = 0.05  # relative tolerance of numbers (not integers) whose noise cannot be estimated
NOISE_WIDTH = 3.0  # tolerance in median absolute deviations
PARTNER_SHARE = 0.05  # cells in which an observer of an exact field shares its number with another, at least
RELATIVE_PARTNER_SHARE = 0.2  # the same, as a fraction of that of the observer with the largest share
SEPARATION = 4.0  # of a frequent number from what most observers report, in widths of the latter
MAX_SEPARATION_CELLS = 1000  # in which this is looked for
SIGNAL = 10.0  # the spread of a measured integer field in multiples of its noise, at least
_TO_SIGMA = 1.4826  # from the median absolute deviation to the standard deviation of a normal distribution
_SIGMAS = 5.0  # numbers further from the centre are outliers and not part of the spread
_ROUNDING = 1 + 1e-9  # 1.1 and 1.0 agree within 0.1, although their difference as floats is larger


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far apart numbers may be and agree: by `absolute`, or by a fraction `relative` of the larger."""

    absolute: float = 0.0
    relative: float = 0.0

    def agrees(self, one: Expr, other: Expr) -> Expr:
        """True where two numbers agree."""
        import polars

        return (one - other).abs() <= _ROUNDING * polars.max_horizontal(
            polars.lit(self.absolute), self.relative * polars.max_horizontal(one.abs(), other.abs())
        )

    def agree(self, one: float, other: float) -> bool:
        """Return whether two numbers agree."""
        limit = max(self.absolute, self.relative * max(abs(one), abs(other)))
        return abs(one - other) <= _ROUNDING * limit

    def __bool__(self) -> bool:
        return self.absolute > 0 or self.relative > 0


@dataclass(frozen=True, slots=True)
class Noise:
    """`measured`: each observer reports its own number. `source`: where the tolerance comes from.

    `exact`: there is none; `assumed`: too few cells differ to estimate it.
    """

    tolerance: Tolerance = Tolerance()
    measured: bool = False
    source: Literal["exact", "assumed", "declared", "estimated"] = "exact"

    @property
    def groups(self) -> bool:
        """True if numbers within the tolerance are the same value, whatever the number of voices."""
        return bool(self.tolerance) and (self.measured or self.source == "declared")


def estimate_noise(ballots: DataFrame, field: FieldType, past: Recalled | None = None) -> Noise:
    """Return the noise of a field from the cells in which nodes differ.

    Args:
        ballots: cell, version, nodes, number; those without a number do not count.
        past: cells of earlier rounds, which count if there are few.
    """
    import polars

    ballots = ballots.select("cell", "version", "nodes", "number")
    if past is not None and ballots["cell"].n_unique() < ENOUGH_CELLS:
        earlier = past.ballots.select(
            polars.col("cell") + ballots["cell"].max() + 1,
            "version",
            polars.lit(1, polars.Int64).alias("nodes"),
            "number",
        )
        ballots = polars.concat([ballots, earlier])
    ballots = ballots.filter(polars.col("number").is_not_null()).with_columns(
        alike=polars.col("nodes").sum().over("cell", "number"), voters=polars.col("nodes").sum().over("cell")
    )
    declared = field.tolerance is not None or field.error is not None
    stated = Tolerance(field.tolerance or 0.0, field.error or 0.0)
    differs = polars.col("alike") < polars.col("voters")
    differing = ballots.filter(differs & (polars.col("voters") >= MIN_NOISE_NODES))
    cells = differing["cell"].n_unique()
    enough = MIN_NOISE_CELLS if field.kind == "number" else MIN_INTEGER_CELLS
    if not declared and (around_most := _noise_around_most(ballots, differing, field)) is not None:
        return around_most
    if cells < enough or not field.is_measure:
        if declared:
            return Noise(stated, source="declared")
        if field.kind == "number":
            return Noise(Tolerance(relative=ASSUMED_ERROR), source="assumed")
        return Noise()
    measured = _is_measured(differing)
    alone = polars.col("alike").max().over("cell") == 1
    deviations = _deviations(differing if measured else differing.filter(alone))
    estimated = _estimate_tolerance(deviations)
    if field.kind == "integer":
        measured = measured and _tracks_something(ballots, deviations)
    if declared:
        return Noise(stated, measured, "declared")
    if measured:
        return Noise(estimated, measured, "estimated") if estimated else Noise()
    if field.kind != "number":
        return Noise()
    if deviations["cell"].n_unique() < MIN_NOISE_CELLS:
        return Noise(Tolerance(relative=ASSUMED_ERROR), source="assumed")
    return Noise(estimated, source="estimated")


def _is_measured(differing: DataFrame) -> bool:
    """True if at most half of the ballots come from observers that share their numbers with others."""
    import polars

    nodes = polars.col("nodes")
    shares = differing.group_by("version").agg(
        ballots=nodes.sum(), share=nodes.filter(polars.col("alike") > 1).sum() / nodes.sum()
    )
    largest = shares["share"].max()
    limit = max(PARTNER_SHARE, RELATIVE_PARTNER_SHARE * (largest if isinstance(largest, float) else 0.0))
    ballots = polars.col("ballots")
    exact, total = shares.select(ballots.filter(polars.col("share") >= limit).sum(), b=ballots.sum()).row(0)
    return bool(2 * exact <= total)


def _noise_around_most(ballots: DataFrame, differing: DataFrame, field: FieldType) -> Noise | None:
    """Return the noise of a field in which most observers are near one another, and those that agree are not.

    None if it is no such field. Integers are not if they may be codes or ids, or if there are few.
    """
    cells = differing["cell"].n_unique()
    is_number = field.kind == "number"
    may_be_measured = is_number or (field.kind == "integer" and cells >= MIN_NOISE_CELLS)
    if not may_be_measured or not _is_centre_elsewhere(differing):
        return None
    deviations = _deviations(differing)
    tolerance = _estimate_tolerance(deviations)
    if not tolerance or not (is_number or _tracks_something(ballots, deviations, 0.5)):
        return None
    if is_number and cells < MIN_INTEGER_CELLS:
        tolerance = replace(tolerance, relative=max(tolerance.relative, ASSUMED_ERROR))
    return Noise(tolerance, measured=True, source="estimated")


def _is_centre_elsewhere(differing: DataFrame) -> bool:
    """True if the numbers that observers share are mostly far from where most of the observers are.

    So it is where few observers report one wrong number, and the others each its own, near the truth.
    """
    import polars

    shared = differing.filter((polars.col("alike") > 1).any().over("cell"))
    undecided = shared.filter(2 * polars.col("alike").max().over("cell") <= polars.col("voters"))
    if undecided.is_empty():
        return False
    cells = undecided["cell"].unique().sort()
    chosen = cells.gather_every(-(-cells.len() // MAX_SEPARATION_CELLS)).to_frame("cell")
    numbers = undecided.select("cell", "number", votes="alike", total="voters").unique()
    numbers = numbers.join(chosen, on="cell")
    leaders = numbers.filter(polars.col("votes") == polars.col("votes").max().over("cell"))
    return 2 * _far_from_most(leaders, numbers)["cell"].n_unique() > chosen.height


def _far_from_most(leaders: DataFrame, candidates: DataFrame, last: str = "number") -> DataFrame:
    """Return the leaders of cells in which all are far from the narrowest range with most of the votes.

    Args:
        last: the column with a leader's highest number, if it is a group of numbers.
    """
    import polars

    low, high, upto = polars.col("number"), polars.col("high"), polars.col("upto")
    ordered = candidates.sort("cell", "number").with_columns(upto=polars.col("votes").cum_sum().over("cell"))
    before = upto - polars.col("votes")
    ends = ordered.select("cell", "total", high="number", end="upto")
    ranges = (
        ordered.select("cell", "number", before=before)
        .join(ends, on="cell")
        .filter((high >= low) & (2 * (polars.col("end") - polars.col("before")) > polars.col("total")))
        .sort("cell", high - low, low.abs(), low)
        .unique("cell", keep="first", maintain_order=True)
        .select("cell", start="number", stop="high")
    )
    start, stop = polars.col("start"), polars.col("stop")
    away = polars.max_horizontal(start - polars.col(last), polars.col("number") - stop)
    is_far = away > SEPARATION * (stop - start)
    return leaders.join(ranges, on="cell").filter(is_far.all().over("cell")).drop("start", "stop")


def _deviations(ballots: DataFrame) -> DataFrame:
    """Add to each ballot its cell's `centre` (the median) and its deviation `off` from it."""
    import polars

    return ballots.with_columns(centre=polars.col("number").median().over("cell")).with_columns(
        off=(polars.col("number") - polars.col("centre")).abs()
    )


def _estimate_tolerance(deviations: DataFrame) -> Tolerance:
    """Return an absolute or relative tolerance: the one whose deviations spread over fewer magnitudes."""
    import polars

    size, off = polars.col("centre").abs(), polars.col("off")
    absolute = deviations["off"].median()
    relative = deviations.filter(size > 0).select((off / size).median()).item()
    nonzero = deviations.filter((off > 0) & (size > 0))
    if not isinstance(absolute, float) or absolute <= 0:
        return Tolerance()
    if isinstance(relative, float) and relative > 0 and nonzero.height >= MIN_NOISE_CELLS:
        spreads = nonzero.select(
            _log_spread(off.log()).alias("absolute"), _log_spread((off / size).log()).alias("relative")
        ).row(0)
        if round(spreads[1], 6) < round(spreads[0], 6):
            return Tolerance(relative=min(NOISE_WIDTH * relative, 0.999))
    return Tolerance(absolute=NOISE_WIDTH * absolute)


def _log_spread(logarithm: Expr) -> Expr:
    return logarithm.quantile(0.9) - logarithm.quantile(0.1)


def _tracks_something(ballots: DataFrame, deviations: DataFrame, share: float = 0.75) -> bool:
    """True if integers vary much more between cells than within: counters, and not codes or ids.

    Args:
        share: of the ballots, those that are no further from the centre than the noise.
    """
    import polars

    centres = ballots.group_by("cell").agg(polars.col("number").median())["number"]
    spread, noise = centres.quantile(0.9), deviations["off"].quantile(share)
    low, middle = centres.quantile(0.1), centres.abs().median()
    if spread is None or low is None or noise is None or middle is None or noise <= 0:
        return False
    varies = (spread - low) / 2 > SIGNAL * noise
    return bool(varies or (isinstance(middle, float) and middle > SIGNAL * SIGNAL * noise))


def decide_numeric_cells(candidates: DataFrame, noise: Noise, *, may_tie: bool) -> DataFrame:
    """Return the chosen row of each cell, with `why` and `behind` (how many nodes agree with it)."""
    import polars

    number = polars.col("number")
    columns = [*candidates.columns, "why", "behind"]
    candidates = _with_middle(candidates)
    groups = _largest_groups(candidates, noise)
    low, high = polars.col("low"), polars.col("high")
    near = noise.tolerance.agrees(number, low) | noise.tolerance.agrees(number, high)
    within = number.is_between("low", "high")
    members = within if noise.measured else within | near
    grouped = candidates.join(groups, on="cell").filter(members)
    rest = candidates.join(groups, on="cell", how="anti")
    inexact = noise.source in ("assumed", "estimated")
    leading = _leaders(rest, measured=noise.measured, inexact=inexact)
    by_votes = _plurality(leading)
    tied = _tied(leading.join(by_votes, on="cell", how="anti"), rest, inexact=inexact)
    tied = tied if may_tie else tied.head(0)
    rest = rest.join(polars.concat([by_votes, tied]).select("cell"), on="cell", how="anti")
    parts = (_best_in_group(grouped, measured=noise.measured), by_votes, tied, _nearest_to_middle(rest))
    return polars.concat(part.select(columns) for part in parts)


def _largest_groups(candidates: DataFrame, noise: Noise) -> DataFrame:
    """Return cell, low, high, size (voices) and group_nodes of each cell's largest group, if it decides.

    A group consists of its lowest number and all higher ones that agree with it, which also agree with each
    other. Of several with as many voices the closest counts, then the one nearer to zero, so that the result
    does not depend on the sign; if they have no number in common, none of them decides.
    """
    import polars

    low, high = polars.col("number"), polars.col("high")
    others = candidates.select("cell", "total", high="number", behind="votes", behind_nodes="nodes")
    pairs = candidates.select("cell", "number").join(others, on="cell").filter(high >= low)
    groups = (
        pairs.filter(noise.tolerance.agrees(low, high))
        .group_by("cell", "number")
        .agg(
            polars.col("behind").sum().alias("size"),
            polars.col("behind_nodes").sum().alias("group_nodes"),
            high.max(),
            polars.col("total").first(),
        )
    )
    largest = groups.filter(polars.col("size") == polars.col("size").max().over("cell"))
    overlaps = low.max().over("cell") <= high.min().over("cell")
    decides = 2 * polars.col("size") > polars.col("total")
    if noise.groups:
        decides |= (polars.col("group_nodes") > 1) & overlaps
    deciding = largest.filter(decides)
    if noise.groups:
        few = deciding.filter(2 * polars.col("size") <= polars.col("total"))
        far = _far_from_most(few, candidates.join(few.select("cell").unique(), on="cell"), last="high")
        deciding = deciding.join(far, on="cell", how="anti")
    return (
        deciding.sort("cell", high - low, low.abs(), low)
        .unique("cell", keep="first", maintain_order=True)
        .select("cell", "high", "size", "group_nodes", low="number")
    )


def _median(order: Expr) -> Expr:
    """Return the lower median of each cell's voices; rows must be sorted."""
    import polars

    votes = polars.col("votes")
    return order.filter(2 * votes.cum_sum() >= votes.sum()).first().over("cell")


def _with_middle(candidates: DataFrame) -> DataFrame:
    """Add each cell's lower `median` and `middle`, and each number's distance `off` from the centre.

    The centre is half-way between the two medians. The middle is the lower median. With `MIN_SPREAD_NODES`
    nodes or more it is half-way between the lowest and highest number within a few sigma of the centre; sigma
    is estimated from the median absolute deviation.
    """
    import polars

    number, votes, off = polars.col("number"), polars.col("votes"), polars.col("off")
    upto, cast = votes.cum_sum().over("cell"), votes.sum().over("cell")
    ordered = candidates.sort("cell", "number").with_columns(
        median=_median(number),
        upper=number.filter(2 * upto > cast).first().over("cell"),
        upto=upto,
        cast=cast,
        is_small_vote=polars.col("nodes").sum().over("cell") < MIN_SPREAD_NODES,
    )
    centre = polars.col("median") / 2 + polars.col("upper") / 2
    spread = ordered.with_columns(off=(number - centre).abs()).sort("cell", "off", "number")
    near = polars.when(off <= _SIGMAS * _TO_SIGMA * _median(off)).then(number)
    between = near.min().over("cell") / 2 + near.max().over("cell") / 2
    return spread.with_columns(middle=polars.when("is_small_vote").then("median").otherwise(between))


def _best_in_group(members: DataFrame, *, measured: bool) -> DataFrame:
    """Choose a number of each group: the most frequent, or in a measured field the nearest to the middle.

    With few nodes the middle is the group's median, the lower one by absolute value, so that the result does
    not depend on the sign.
    """
    import polars

    number, votes, size = polars.col("number"), polars.col("votes"), polars.col("number").abs()
    members = members.sort("cell", size, "number").with_columns(
        middle=polars.when(polars.col("is_small_vote") | polars.lit(measured))
        .then(_median(number))
        .otherwise("middle")
    )
    best = members if measured else members.filter(votes == votes.max().over("cell"))
    away = (number - polars.col("middle")).abs()
    order = [away, ~polars.col("incumbent"), size] if measured else [~polars.col("incumbent"), away, size]
    return (
        best.sort("cell", *order, "number")
        .unique("cell", keep="first", maintain_order=True)
        .with_columns(why=polars.lit("tolerance"), behind=polars.col("group_nodes"))
    )


def _leaders(candidates: DataFrame, *, measured: bool, inexact: bool) -> DataFrame:
    """Return the numbers with most voices in each cell, of cells in which these may decide.

    Args:
        measured: then only of cells with two numbers, which tie.
        inexact: numbers may have noise; then not where most nodes are far from all of them.
    """
    import polars

    votes, are_two = polars.col("votes"), polars.len().over("cell") == 2
    may_lead = are_two if measured else are_two | (polars.col("nodes") > 1)
    leaders = candidates.filter((votes == votes.max().over("cell")) & may_lead)
    if inexact:
        leaders = leaders.join(_far_from_most(leaders, candidates), on="cell", how="anti")
    return leaders.with_columns(tied=polars.len().over("cell"))


def _plurality(leaders: DataFrame) -> DataFrame:
    """Choose the leader of each cell; of several, the incumbent or the heaviest, or none if still tied."""
    import polars

    weight = polars.col("weight")
    is_heaviest = weight == weight.max().over("cell")
    found = leaders.with_columns(
        heaviest=is_heaviest & (is_heaviest.sum().over("cell") == 1),
        kept=polars.col("incumbent").any().over("cell"),
    )
    return (
        found.filter(
            (polars.col("tied") == 1)
            | polars.col("incumbent")
            | (~polars.col("kept") & polars.col("heaviest"))
        )
        .with_columns(
            why=polars.when(polars.col("tied") == 1)
            .then(polars.lit("plurality"))
            .when("incumbent")
            .then(polars.lit("incumbent"))
            .otherwise(polars.lit("weight")),
            behind=polars.col("nodes"),
        )
        .drop("heaviest", "kept")
    )


def _tied(leaders: DataFrame, candidates: DataFrame, *, inexact: bool) -> DataFrame:
    """Return a row without a value for each cell whose leaders are tied.

    Args:
        inexact: numbers may have noise, so that those between the leaders tell which one is nearer to most.
    """
    import polars

    if inexact:
        distinct = candidates.group_by("cell").agg(distinct=polars.len())
        leaders = leaders.join(distinct, on="cell").filter(polars.col("tied") == polars.col("distinct"))
        leaders = leaders.drop("distinct")
    first = leaders.sort("cell", "number").unique("cell", keep="first", maintain_order=True)
    return first.with_columns(
        *(polars.lit(None, first.schema[name]).alias(name) for name in ("number", "word", "text", "other")),
        why=polars.lit("undecided"),
        behind=polars.col("nodes"),
    )


def _nearest_to_middle(candidates: DataFrame) -> DataFrame:
    """Choose the number nearest to the middle, of those with a third of the voices below and a third above.

    Thirds are rounded down, so that the result lies between honest numbers while fewer than a third of the
    voters lie.
    """
    import polars

    cast, third = polars.col("cast"), (polars.col("cast") - 1) // 3
    inner = (polars.col("upto") > third) & (polars.col("upto") - polars.col("votes") < cast - third)
    away = (polars.col("number") - polars.col("middle")).abs()
    return (
        candidates.filter(inner)
        .sort("cell", away, "off", "number")
        .unique("cell", keep="first", maintain_order=True)
        .with_columns(why=polars.lit("median"), behind=polars.col("nodes"))
    )
