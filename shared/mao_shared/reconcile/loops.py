"""How long to wait before the next try: stamina's schedule, for loops that stamina does not run itself."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Seconds before the second try and at most, as stamina's `wait_initial` and `wait_max`.

    Doubled after each try, plus up to `initial` drawn at random, so that many nodes do not come back to one
    server at once.
    """

    initial: float = 1.0
    maximum: float = 60.0

    def pause(self, tries: int, chance: float | None = None) -> float:
        """Seconds before the next try after so many; `chance`, from 0 to 1, is drawn unless given."""
        jitter = self.initial * (random.random() if chance is None else chance)  # noqa: S311 (no secret)
        return min(self.maximum, self.initial * 2.0 ** min(tries - 1, 64) + jitter)
