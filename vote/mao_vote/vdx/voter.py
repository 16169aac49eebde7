"""VDX's votes on texts, by place of the voter: plurality by weight, with the same history as numbers have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from math import fsum, isclose

from mao_shared.models.round import HistoryRule

from .standing import History, advanced, base_weights, hybrid_weights, is_first, reweighed, weighed


def weights(texts: Mapping[int, str], before: History, rule: HistoryRule) -> dict[int, float]:
    """What agreement is to numbers is here the part of the others who say the same."""
    standings = [before[at] for at in texts]
    if rule == "HYBRID":
        return dict(zip(texts, hybrid_weights(standings, _shares(texts)), strict=True))
    return dict(zip(texts, base_weights(rule, standings), strict=True))


def heaviest(texts: Mapping[int, str], weights: Mapping[int, float]) -> str | None:
    """None when the heaviest are equally heavy. Who has no weight has no part unless nobody has any."""
    counted = weights if any(weights.values()) else dict.fromkeys(texts, 1.0)
    parts: dict[str, list[float]] = {}
    for at, each in texts.items():
        parts.setdefault(each, []).append(counted[at])
    total = {each: fsum(some) for each, some in parts.items()}
    most = max(total.values())
    winners = [each for each, weight in total.items() if isclose(weight, most, rel_tol=1e-9)]
    return winners[0] if len(winners) == 1 else None


def after(texts: Mapping[int, str], before: History, rule: HistoryRule, output: str | None) -> History:
    """The standings after this vote. Without an output HYBRID judges as at its first vote."""
    if rule == "NONE":
        return before
    if rule == "HYBRID" and output is not None and not is_first([before[at] for at in texts]):
        right = {at: float(each == output) for at, each in texts.items()}
        return reweighed(advanced(before, right), texts, _shares(texts))
    most = {at: float(2 * each >= len(texts) - 1) for at, each in zip(texts, _alike(texts), strict=True)}
    after = advanced(before, most)
    return weighed(after, dict.fromkeys(texts, 1.0)) if rule == "HYBRID" else after


def _alike(texts: Mapping[int, str]) -> list[int]:
    """For each text, how many of the others say the same."""
    counts = Counter(texts.values())
    return [counts[each] - 1 for each in texts.values()]


def _shares(texts: Mapping[int, str]) -> list[float]:
    return [each / (len(texts) - 1) for each in _alike(texts)] if len(texts) > 1 else [1.0]
