"""A file that is voted as a whole."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from .elect import elect
from .election import Cell, FileDecision, Tally


def decide_opaque(
    versions: Mapping[str, bytes], *, incumbent: bytes | None, weights: Mapping[str, float]
) -> FileDecision:
    """Elects one of the versions as it is; in the evidence each stands as its SHA-256."""
    chosen, why = elect(versions, incumbent=incumbent, weights=weights)
    votes = {
        node: Tally(1, int(chosen is not None and content != chosen)) for node, content in versions.items()
    }
    cells: list[Cell] = []
    if any(content != chosen for content in versions.values()):
        values: dict[str, str | None] = {node: _digest(content) for node, content in versions.items()}
        named = None if chosen is None else _digest(chosen)
        behind = sum(content == chosen for content in versions.values())
        cells.append(Cell((), "", values, named, why, contested=2 * behind <= len(versions)))
    return FileDecision(chosen, "opaque", cells=cells, votes=votes, conflicts=int(why == "undecided"))


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
