"""The detector of the releases before decision 0037, with which the present one is compared. Unchanged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Literal

REFERENCE_VALUES = 3  # accepted values whose median is the reference
MAX_RESIDUALS = 36  # residuals from which the band is computed
MIN_RESIDUALS = 5  # with fewer, the band is provisional
COLD_SHARE = 0.25  # band as a share of the reference while there are few residuals
MIN_SHARE = 0.062  # smallest band as a share of the reference
NOISE_SHARE = 0.005  # smallest assumed noise as a share of the reference
SIGMAS = 3.5  # width of the band in standard deviations
TAIL = 1.5  # width of the band in 95th percentiles of the residuals
SHIFT_VALUES = 3  # consecutive flagged values that form a new level
MAGNITUDE = 10  # values beyond this multiple of the expected value and band are on another scale
_TO_SIGMA = 1.4826  # from the median absolute deviation to the standard deviation of a normal distribution
Verdict = Literal["accepted", "spike", "repeated", "level-shift"]


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict on one value. The accepted range is `expected` ± `band`; both are None for the first value.

    `repeated`: flagged like the previous value, with which it agrees, so it raises no second alarm.
    `level-shift`: the last of several flagged values that agree or are on another scale; it is accepted as
    the new level. `provisional`: the band is a guess, since few residuals are known.
    """

    verdict: Verdict
    expected: float | None
    band: float | None
    provisional: bool

    @property
    def accepted(self) -> bool:
        """True if the value becomes part of the history."""
        return self.verdict in ("accepted", "level-shift")

    @property
    def alarming(self) -> bool:
        """True if the value raises an alarm."""
        return self.verdict in ("spike", "level-shift")


@dataclass(slots=True)
class Detector:
    """The state of a series after the values so far."""

    _accepted: list[float] = field(default_factory=list)
    _residuals: list[float] = field(default_factory=list)
    _flagged: list[float] = field(default_factory=list)

    def see(self, value: float) -> Judgement:
        """Judge the next value, which must be finite, and add it to the state."""
        if not self._accepted:
            self._accepted.append(value)
            return Judgement("accepted", None, None, provisional=True)
        reference = median(self._accepted[-REFERENCE_VALUES:])
        provisional = len(self._residuals) < MIN_RESIDUALS
        offset, band = _expected_range(reference, self._residuals)
        expected = reference + offset
        if abs(value - expected) <= band:
            self._accept(value, value - reference)
            return Judgement("accepted", expected, band, provisional)
        self._flagged.append(value)
        scale = abs(expected) + band
        last = self._flagged[-SHIFT_VALUES:]
        level = median(last)
        is_other_scale = len(last) == SHIFT_VALUES and _is_beyond(last, scale)
        is_one_level = len(last) == SHIFT_VALUES and all(abs(flagged - level) <= band for flagged in last)
        if not (is_other_scale or is_one_level):
            near = COLD_SHARE * abs(value) if _is_beyond(last[-2:], scale) else band
            is_repeated = any(abs(value - flagged) <= near for flagged in last[-2:-1])
            return Judgement("repeated" if is_repeated else "spike", expected, band, provisional)
        # The residuals show how noisy the series is, so they are kept unless the scale has changed.
        self._accepted, self._flagged = last, []
        if is_other_scale:
            self._residuals = []
        return Judgement("level-shift", expected, band, provisional)

    def _accept(self, value: float, residual: float) -> None:
        self._accepted = [*self._accepted, value][-REFERENCE_VALUES:]
        self._residuals = [*self._residuals, residual][-MAX_RESIDUALS:]
        self._flagged = []


def _expected_range(reference: float, residuals: Sequence[float]) -> tuple[float, float]:
    """Return the expected offset from the reference, and the half-width of the band around it."""
    size = abs(reference)
    if len(residuals) < MIN_RESIDUALS:
        return 0.0, COLD_SHARE * size
    offset = median(residuals)
    deviation = median([abs(residual - offset) for residual in residuals])
    spread = max(_TO_SIGMA * deviation, NOISE_SHARE * size)
    small_sample_factor = 1 + 4 / len(residuals)  # the spread of few residuals is itself uncertain
    ranked = sorted(abs(residual) for residual in residuals)
    position = 0.95 * (len(ranked) - 1)  # of the 95th percentile, between two residuals
    low = int(position)
    high = min(low + 1, len(ranked) - 1)
    tail = ranked[low] + (ranked[high] - ranked[low]) * (position - low)
    return offset, max(SIGMAS * small_sample_factor * spread, TAIL * tail, MIN_SHARE * size)


def _is_beyond(values: Sequence[float], scale: float) -> bool:
    """True if all values have one sign and are so large that the known scale says nothing about their noise.

    The scale of a series that was always zero is zero.
    """
    low, high = min(values), max(values)
    return low * high > 0 and min(abs(low), abs(high)) > MAGNITUDE * scale
