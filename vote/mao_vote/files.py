"""Deciding the content of one file from several nodes' versions of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from mao_shared.models.round import VoteDefinition

from .election import Cell, FileDecision, Tally, Why
from .opaque import decide_opaque
from .recordfile import Ballot, decide_records
from .records import format_of
from .vdx import Standing
from .versions import TooFewReadable

__all__ = ["Cell", "FileDecision", "Tally", "Why", "decide_file"]


def decide_file(
    path: str,
    versions: Mapping[str, bytes],
    *,
    incumbent: bytes | None,
    definition: VoteDefinition,
    weights: Mapping[str, float],
    standings: Mapping[str, Standing] | None = None,
) -> FileDecision:
    """What the file says in ground truth, and how that was decided.

    `versions`: node → content, of the nodes that have the file; at least one. `incumbent`: what ground truth
    says so far, which settles ties. `weights` settle those that are left; a node without one has 1.
    `standings`: the nodes' history with this file, for definitions that ask for more than a plain vote.
    The order of the nodes plays no part. A record file of which most versions cannot be read as records is
    decided as a whole, like any other file.
    """
    rule, how = definition.rule_for(path), format_of(path)
    if how is None or rule.opaque:
        return decide_opaque(versions, incumbent=incumbent, weights=weights)
    error = definition.params.error if rule.error is None else rule.error
    try:
        return decide_records(
            Ballot(how, rule, versions, incumbent, weights, error, definition, standings or {})
        )
    except TooFewReadable as why:
        whole = decide_opaque(versions, incumbent=incumbent, weights=weights)
        whole.notes.append(f"decided as a whole: {why}")
        return whole
