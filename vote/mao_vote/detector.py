"""Detects anomalous values in a series by comparing each with the values before it. Pure.

A value is expected from several references: the last accepted values, a longer window, and the values at the
same hour or weekday. The one that was nearest to the series so far is used. The band around it is as wide as
the noise and the farthest of the last distances require.

Every value teaches the band, also a flagged one, or a series wider than its start would be flagged for ever.
So that one spike does not hide the next, a flagged value counts as if it were just outside the band, and as
farther only if flagged values are frequent. Flagged values are kept out of the reference of last values, so
that a spike raises no alarm for each value after it. Several flagged values in a row that agree with one
another are a new level and become that reference. So do several on a much larger scale than all before, for
instance after a start of zeros, even if they do not agree.

The largest of the last n distances bounds the share of alarms to about 1 in n for any distribution, as long
as the series stays as it is (conformal anomaly detection: Laxhammar and Falkman, 2010).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from math import fsum, sqrt
from typing import Literal

from .seasons import MAX_VALUES, Seasons, median

__all__ = ["MAX_VALUES", "Detector", "Judgement"]

REFERENCE_VALUES = 3  # accepted values whose median is the reference
WINDOW = 36  # values of the longer reference, and distances from which the noise is computed
MIN_WINDOW = 12  # with fewer values, the window is no reference
MAX_DISTANCES = 72  # distances of which the farthest bounds the band
MAX_RARE = 144  # the same, if more than half of the last distances are equal
MAX_SCORED = 200  # distances by which references are compared; also the bound of seasonal bands
MIN_DISTANCES = 5  # with fewer, the band is provisional and a reference is not compared
MIN_SEASON = 24  # distances from which a season is compared
SEASON_GAIN = 0.8  # largest ratio of mean distances for which a season is preferred
SEASON_LOSS = 1.25  # largest ratio for which a season may accept what another reference does not expect
COLD_SHARE = 0.25  # band as a share of the reference while there are few distances
MIN_SHARE = 0.025  # smallest band as a share of the reference
SMALL_SHARE = 0.5  # n distances may be too equal by chance, so the share is larger by this / n
SIGMAS = 2.0  # width of the band in standard deviations
SMALL_SAMPLE = 12.7  # the noise of n distances is uncertain, so the band is wider by this / (n - 1)
RARE = 2.0  # the farthest of n distances is seen too rarely, so the band is wider by this / n
RARE_SEASON = 10.0  # the same for a season, which comes from few days
LESSON = 1.5  # distance in bands as which a flagged value counts at most
FREQUENT_LESSON = 5.0  # the same, if another value was flagged just before
FREQUENT_VALUES = 20  # values between two flagged ones that are frequent
SHIFT_VALUES = 3  # consecutive flagged values that form a new level
MAGNITUDE = 10  # values beyond this multiple of the expected value and band are on another scale
COUNT_SIGMAS = 3.0  # width of the band of a count in standard deviations of a Poisson distribution
MAX_COUNT = 10.0  # mean above which the distances show the noise of a count well enough
COUNT_DISPERSION = 0.5  # smallest ratio of variance to mean of a count
_TO_SIGMA = 1.4826  # from the median absolute deviation to the standard deviation of a normal distribution

Verdict = Literal["accepted", "spike", "repeated", "level-shift"]
Reference = Literal["last", "window", "hour", "weekday", "hour-of-week"]
Bound = Literal["few", "noise", "farthest", "share", "count"]
_SEASONAL = ("hour", "weekday", "hour-of-week")
_REFERENCES: dict[Reference, str] = {
    "last": "as the last {} accepted values",
    "window": "as the last {} values",
    "hour": "as at this hour on {} days before",
    "weekday": "as on this weekday in {} weeks before",
    "hour-of-week": "as at this hour and weekday in {} weeks before",
}
_BOUNDS: dict[Bound, str] = {
    "few": "the band is a guess from few values",
    "noise": "the band is the noise of the last {} values",
    "farthest": "the band is the farthest that any of the last {} values was away",
    "share": "the band is the smallest share of it",
    "count": "the band is what chance allows for so small a count",
}


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict on one value. The accepted range is `expected` ± `band`; both are None for the first value.

    `repeated`: flagged, and like the previous value or nearer on its side, so it raises no second alarm.
    `level-shift`: the last of several flagged values that agree or are on another scale; it is accepted as
    the new level. `provisional`: the band is a guess, since few distances are known. `reason`: what the
    expected value and the band come from, in words; empty for the first value.
    """

    verdict: Verdict
    expected: float | None
    band: float | None
    provisional: bool
    reason: str = ""

    @property
    def accepted(self) -> bool:
        """True if the value becomes part of the history."""
        return self.verdict in ("accepted", "level-shift")

    @property
    def alarming(self) -> bool:
        """True if the value raises an alarm."""
        return self.verdict in ("spike", "level-shift")


@dataclass(frozen=True, slots=True)
class _Range:
    """The range in which a value is expected, and what it comes from."""

    expected: float
    band: float
    bound: Bound
    reason: str

    @property
    def scale(self) -> float:
        return abs(self.expected) + self.band

    def holds(self, value: float) -> bool:
        return abs(value - self.expected) <= self.band


@dataclass(slots=True)
class Detector:
    """The state of a series after the values so far; it forgets what is older than `MAX_VALUES` values."""

    _accepted: list[float] = field(default_factory=list)
    _window: list[float] = field(default_factory=list)
    _flagged: list[float] = field(default_factory=list)
    _calm: _Range | None = None  # the range of the first of the flagged values
    _seasons: Seasons = field(default_factory=Seasons)
    _distances: dict[Reference, list[float]] = field(default_factory=dict)  # signed
    _position: int = 0
    _last_flagged: int = -MAX_VALUES
    _last_shift: int = -MAX_VALUES

    def see(self, value: float, time: datetime | None = None) -> Judgement:
        """Judge the next value, which must be finite, and add it to the state.

        Without `time`, the value is compared with no season. Hours and weekdays are those of its time zone.
        """
        value = float(value)
        self._position += 1
        if not self._accepted:
            self._accepted.append(value)
            self._remember(value, time)
            return Judgement("accepted", None, None, provisional=True)
        references = self._references(time)
        best = self._best(references)
        range_ = self._range(best, *references[best])
        approving = None if range_.holds(value) else self._season_that_expects(value, best, references)
        verdict = self._verdict(value, approving or range_)
        self._learn(value, range_, verdict, {name: at for name, (at, _) in references.items()})
        self._remember(value, time)
        shown = approving or range_
        return Judgement(verdict, shown.expected, shown.band, shown.bound == "few", shown.reason)

    def _references(self, time: datetime | None) -> dict[Reference, tuple[float, int]]:
        """Return the value expected from each reference, and from how many values or days."""
        found: dict[Reference, tuple[float, int]] = {"last": (median(self._accepted), len(self._accepted))}
        if len(self._window) >= MIN_WINDOW:
            found["window"] = (median(self._window), len(self._window))
        if time is not None:
            found.update(self._seasons.expect(time, self._position))
        return found

    def _best(self, references: dict[Reference, tuple[float, int]]) -> Reference:
        """Return the reference that was nearest to the series so far; a season only if it was much nearer."""
        best: Reference = "last"
        for name in references:
            if name != best and self._is_as_near(name, best, SEASON_GAIN if name in _SEASONAL else 1.0):
                best = name
        return best

    def _season_that_expects(
        self, value: float, best: Reference, references: dict[Reference, tuple[float, int]]
    ) -> _Range | None:
        """Return the range of a season, about as near as the best reference, that holds the value.

        The values at which a week begins or ends are too few to make the season the nearest reference.
        """
        for name, (at, size) in references.items():
            if name != best and name in _SEASONAL and self._is_as_near(name, best, SEASON_LOSS):
                range_ = self._range(name, at, size)
                if range_.holds(value):
                    return range_
        return None

    def _is_as_near(self, name: Reference, other: Reference, ratio: float) -> bool:
        """True if the mean distance from `name` is less than `ratio` of that from `other`."""
        values, least = (MAX_SCORED, MIN_SEASON) if name in _SEASONAL else (MAX_DISTANCES, MIN_DISTANCES)
        distances = self._distances.get(name, [])[-values:]
        if len(distances) < least:
            return False
        return _mean_distance(distances) < ratio * _mean_distance(self._distances[other][-values:])

    def _range(self, name: Reference, reference: float, size: int) -> _Range:
        """Return the range around a reference, which comes from `size` values or days."""
        distances = self._distances.get(name, [])
        if len(distances) < MIN_DISTANCES:
            reason = f"{_REFERENCES[name].format(size)}; {_BOUNDS['few']}"
            return _Range(reference, self._guess(reference), "few", reason)
        offset, band, bound, number = self._band(name, reference, distances)
        reason = f"{_REFERENCES[name].format(size)}; {_BOUNDS[bound].format(number)}"
        return _Range(reference + offset, band, bound, reason)

    def _guess(self, reference: float) -> float:
        """Return the band while there are few distances."""
        is_count = all(value >= 0 and value.is_integer() for value in self._window)
        chance = _poisson_band(reference) if is_count and reference > 0 else 0.0
        return max(COLD_SHARE * abs(reference), chance, _count_band(self._window))

    def _band(
        self, name: Reference, reference: float, distances: list[float]
    ) -> tuple[float, float, Bound, int]:
        """Return the offset from the reference, the band, its bound, and how many distances led to it."""
        recent = distances[-WINDOW:]
        offset = median(recent)
        sigma = _TO_SIGMA * median([abs(distance - offset) for distance in recent])
        noise = SIGMAS * (1 + SMALL_SAMPLE / (len(recent) - 1)) * sigma
        share = MIN_SHARE + SMALL_SHARE / len(distances)
        is_seasonal = name in _SEASONAL
        # What is constant for most of the time shows rarely how far it goes.
        distances = distances[-(MAX_SCORED if is_seasonal else MAX_DISTANCES if sigma else MAX_RARE) :]
        rare = RARE_SEASON if is_seasonal else RARE
        farthest = (1 + rare / len(distances)) * max(abs(distance - offset) for distance in distances)
        bounds: list[tuple[float, Bound, int]] = [
            (share * abs(reference), "share", len(distances)),
            (noise, "noise", len(recent)),
            (farthest, "farthest", len(distances)),
            (_count_band(self._window), "count", len(self._window)),
        ]
        band, bound, number = max(bounds, key=lambda one: one[0])
        return offset, band, bound, number

    def _verdict(self, value: float, range_: _Range) -> Verdict:
        run = [*self._flagged, value]
        # The flagged values have taught the band, so the one before them says whether they are a level.
        calm = range_ if self._calm is None or not self._flagged else self._calm
        is_other_scale = len(run) >= SHIFT_VALUES and _is_beyond(run[-SHIFT_VALUES:], calm.scale)
        if range_.holds(value) and not is_other_scale:
            self._flagged = []
            return "accepted"
        self._flagged, self._calm = run[-SHIFT_VALUES:], calm
        if len(run) >= SHIFT_VALUES:
            level = median(self._flagged)
            if is_other_scale or all(abs(flagged - level) <= calm.band for flagged in self._flagged):
                return "level-shift"
        return "repeated" if len(run) > 1 and _is_repeated(run[-2], value, calm) else "spike"

    def _learn(
        self, value: float, range_: _Range, verdict: Verdict, references: dict[Reference, float]
    ) -> None:
        """Add the value's distances from the references, and make a new level the reference."""
        is_start = self._position < MIN_WINDOW  # among so few values, two are not frequent
        is_frequent = not is_start and self._position - self._last_flagged <= FREQUENT_VALUES
        if verdict != "accepted":
            self._last_flagged = self._position
        if verdict == "level-shift":
            self._shift()
            return
        if verdict == "repeated":
            return
        if verdict == "accepted":
            self._accepted = [*self._accepted, value][-REFERENCE_VALUES:]
        lesson = value
        if not range_.holds(value):
            most = (FREQUENT_LESSON if is_frequent else LESSON) * range_.band
            most = most or COLD_SHARE * abs(value - range_.expected)
            lesson = max(range_.expected - most, min(range_.expected + most, value))
        for name, reference in references.items():
            # A reference that did expect a flagged value has learnt the smaller distance.
            distance = min(value - reference, lesson - reference, key=abs)
            self._distances[name] = [*self._distances.get(name, []), distance][-MAX_SCORED:]

    def _shift(self) -> None:
        """Make the flagged values the reference.

        A step is not noise, so the distances of its values are forgotten, unless steps are frequent. A season
        that did not expect the step has to prove itself anew.
        """
        if self._calm is not None and _is_beyond(self._flagged, self._calm.scale):
            self._distances = {}
        elif self._position - self._last_shift > MAX_DISTANCES:
            for distances in self._distances.values():
                del distances[-1:]
        self._distances = {name: kept for name, kept in self._distances.items() if name not in _SEASONAL}
        self._accepted, self._window, self._flagged = self._flagged, self._flagged[:-1], []
        self._last_shift = self._position

    def _remember(self, value: float, time: datetime | None) -> None:
        self._window = [*self._window, value][-WINDOW:]
        if time is not None:
            self._seasons.add(time, value, self._position)


def _mean_distance(distances: list[float]) -> float:
    """Return the mean distance from the expected value; 0 if there is none."""
    if not distances:
        return 0.0
    offset = median(distances[-WINDOW:])
    # fsum is exact, so that the choice of a reference is the same everywhere.
    return fsum(abs(distance - offset) / len(distances) for distance in distances)


def _is_repeated(last: float, value: float, range_: _Range) -> bool:
    """True if a flagged value is like the flagged one before it, or nearer on the same side."""
    near = COLD_SHARE * abs(value) if _is_beyond([last, value], range_.scale) else range_.band
    before, now = last - range_.expected, value - range_.expected
    is_nearer = (before > 0) == (now > 0) and abs(now) <= abs(before)
    return is_nearer or abs(value - last) <= near


def _count_band(values: list[float]) -> float:
    """Return how far a count may be from its mean by chance; 0 unless the values are small counts."""
    if len(values) < MIN_DISTANCES or not all(value >= 0 and value.is_integer() for value in values):
        return 0.0
    mean = fsum(value / len(values) for value in values)
    if not 0 < mean < MAX_COUNT:
        return 0.0
    variance = fsum((value - mean) ** 2 for value in values) / len(values)
    return _poisson_band(mean) if variance >= COUNT_DISPERSION * mean else 0.0


def _poisson_band(mean: float) -> float:
    """Return how far above its mean `COUNT_SIGMAS` standard deviations of a Poisson distribution are.

    Its square root is nearly normal with a standard deviation of 1/2 (Anscombe, 1948).
    """
    return COUNT_SIGMAS * sqrt(mean + 3 / 8) + COUNT_SIGMAS**2 / 4


def _is_beyond(values: list[float], scale: float) -> bool:
    """True if all values have one sign and are so large that the known scale says nothing about their noise.

    The scale of a series that was always zero is zero.
    """
    low, high = min(values), max(values)
    return low * high > 0 and min(abs(low), abs(high)) > MAGNITUDE * scale
