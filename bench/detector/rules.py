"""The rules that are compared: each is told the values of one series and says which raise an alarm."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime
from math import fsum, sqrt

from mao_vote.detector import Detector

from . import former

Point = tuple[datetime, float]
Rule = Callable[[Sequence[Point]], list[bool]]
SIGMA_VALUES, SIGMAS = 36, 3


def present(points: Sequence[Point]) -> list[bool]:
    detector = Detector()
    return [detector.see(value, time).alarming for time, value in points]


def before(points: Sequence[Point]) -> list[bool]:
    detector = former.Detector()
    return [detector.see(value).alarming for _, value in points]


def three_sigma(points: Sequence[Point]) -> list[bool]:
    """Alarm beyond three standard deviations from the mean of the last 36 values."""
    window: deque[float] = deque(maxlen=SIGMA_VALUES)
    alarms = []
    for _, value in points:
        alarm = False
        if len(window) == SIGMA_VALUES:
            mean = fsum(window) / SIGMA_VALUES
            alarm = abs(value - mean) > SIGMAS * sqrt(fsum((x - mean) ** 2 for x in window) / SIGMA_VALUES)
        alarms.append(alarm)
        window.append(value)
    return alarms


OTHERS: dict[str, Rule] = {"3 sigma of the last 36": three_sigma, "the former rule": before}
