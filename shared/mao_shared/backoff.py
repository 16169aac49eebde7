"""How long to wait before the next try of something outside that did not answer or refused."""

from __future__ import annotations

import random


def spread_pause(first: float, tries: int, most: float, chance: float | None = None) -> float:
    """Seconds before the next try: `first` after one, doubled after each more, up to `most`.

    Spread by a quarter either way (`chance`, from 0 to 1, is drawn unless given), so that many nodes do not
    come back to one server at once.
    """
    spread = 0.75 + 0.5 * (random.random() if chance is None else chance)  # noqa: S311 (jitter)
    return min(first * 2.0 ** min(tries - 1, 20), most) * spread
