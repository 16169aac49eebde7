"""Whether a value of a series is anomalous, judged from the values before it. Pure and causal.

The reference is the median of the last accepted values. A value is judged by how far it is from the
reference, compared to how far the accepted ones were from theirs. Flagged values stay out of the history, so
that one spike raises one alarm and not also one for each value after it; several flagged values that agree
with one another are the series' new level and become the history. So do several on another scale than all
before, as after a start of zeros, whether they agree or not: what is known says nothing of how they vary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Literal

REFERENCE = 3  # accepted values that make the reference
WINDOW = 36  # residuals that make the band
MIN_RESIDUALS = 5  # residuals below which the band is a guess
COLD_SHARE = 0.25  # of the reference: the band while residuals are few
MIN_SHARE = 0.062  # of the reference: changes below are never an alarm
NOISE_SHARE = 0.005  # of the reference: what a constant series may vary at least
SIGMAS = 3.5
TAIL = 1.5  # times the 95th percentile of residuals that were accepted before
SHIFT = 3  # flagged values in a row that agree with one another make a new level
MAGNITUDE = 10  # times expected value and band: flagged values beyond are on another scale than those known
_TO_SIGMA = 1.4826  # from the median absolute deviation to the standard deviation of a normal distribution
Verdict = Literal["accepted", "spike", "repeated", "level-shift"]


@dataclass(frozen=True, slots=True)
class Judgement:
    """The value was allowed `expected` ± `band`; None for the first value, which nothing is known about.

    `repeated`: it is flagged like the value right before it and agrees with that one, so what was said of
    that one goes for both. `level-shift`: it is the last of several that were flagged and agree, or are on
    another scale; it is accepted, as the new level.
    """

    verdict: Verdict
    expected: float | None
    band: float | None
    provisional: bool

    @property
    def accepted(self) -> bool:
        """Whether it counts among the values that later ones are judged by."""
        return self.verdict in ("accepted", "level-shift")

    @property
    def alarming(self) -> bool:
        """Whether it raises an alarm."""
        return self.verdict in ("spike", "level-shift")


@dataclass(slots=True)
class Detector:
    """The state after the values seen so far; `see` judges the next one and takes it in."""

    _accepted: list[float] = field(default_factory=list)
    _residuals: list[float] = field(default_factory=list)
    _flagged: list[float] = field(default_factory=list)

    def see(self, value: float) -> Judgement:
        """Judges a finite value."""
        if not self._accepted:
            self._accepted.append(value)
            return Judgement("accepted", None, None, provisional=True)
        reference = median(self._accepted[-REFERENCE:])
        provisional = len(self._residuals) < MIN_RESIDUALS
        offset, band = _limits(reference, self._residuals)
        expected = reference + offset
        if abs(value - expected) <= band:
            self._accept(value, value - reference)
            return Judgement("accepted", expected, band, provisional)
        self._flagged.append(value)
        scale = abs(expected) + band
        last = self._flagged[-SHIFT:]
        other_scale = len(last) == SHIFT and _beyond(last, scale)
        if not (other_scale or _agree(last, band)):
            near = COLD_SHARE * abs(value) if _beyond(last[-2:], scale) else band
            again = any(abs(value - each) <= near for each in last[-2:-1])
            return Judgement("repeated" if again else "spike", expected, band, provisional)
        self._rebase(forget=other_scale)
        return Judgement("level-shift", expected, band, provisional)

    def _accept(self, value: float, residual: float) -> None:
        self._accepted = [*self._accepted, value][-REFERENCE:]
        self._residuals = [*self._residuals, residual][-WINDOW:]
        self._flagged = []

    def _rebase(self, *, forget: bool) -> None:
        """The flagged values become the level; the residuals, which tell the series' noise, stay unless they
        are of another scale, and then the band is again a guess."""
        self._accepted = self._flagged[-SHIFT:]
        self._residuals = [] if forget else self._residuals
        self._flagged = []


def _limits(reference: float, residuals: Sequence[float]) -> tuple[float, float]:
    """How far from the reference a value is expected, and how far from there it may lie."""
    size = abs(reference)
    if len(residuals) < MIN_RESIDUALS:
        return 0.0, COLD_SHARE * size
    offset = median(residuals)
    deviation = median([abs(each - offset) for each in residuals])
    spread = max(_TO_SIGMA * deviation, NOISE_SHARE * size)
    few = 1 + 4 / len(residuals)  # a spread known from few residuals is itself uncertain
    tail = _quantile([abs(each) for each in residuals], 0.95)
    return offset, max(SIGMAS * few * spread, TAIL * tail, MIN_SHARE * size)


def _quantile(values: Sequence[float], share: float) -> float:
    """Linear between the two values around it."""
    ranked = sorted(values)
    place = share * (len(ranked) - 1)
    low = int(place)
    high = min(low + 1, len(ranked) - 1)
    return ranked[low] + (ranked[high] - ranked[low]) * (place - low)


def _beyond(values: Sequence[float], scale: float) -> bool:
    """Whether all lie on one side of zero, and so far out that a band of that scale, which is none at all for
    a series that was always zero, tells nothing of how such values vary."""
    low, high = min(values), max(values)
    return low * high > 0 and min(abs(low), abs(high)) > MAGNITUDE * scale


def _agree(values: Sequence[float], band: float) -> bool:
    """Whether flagged values in a row are one level: each as near to the middle as the band allows."""
    middle = median(values)
    return len(values) == SHIFT and all(abs(each - middle) <= band for each in values)
