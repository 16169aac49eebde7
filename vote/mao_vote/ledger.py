"""The ledger: each node's voting history by file, from which VDX's history rules derive weights.

It is stored in the dataset with the ground truth, so that a recomputed round starts from the
same history. Each round of a file counts once per node; its success is the fraction of cells in which the
node agreed with the result. The ledger is updated only if the vote definition uses history.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mao_git import Clone
from mao_shared.models.evidence import Tally
from mao_shared.models.round import VoteDefinition

from .evidence import RoundTotals
from .vdx.standing import NEW, Standing, base_weights

LEDGER_PATH = ".mao/history.json"


class BrokenLedger(ValueError):
    """The bytes are not a valid ledger; the message names the place."""


@dataclass(frozen=True, slots=True)
class Ledger:
    """Standings by file and node. Immutable."""

    files: Mapping[str, Mapping[str, Standing]] = field(default_factory=dict)

    def standings(self, path: str, nodes: Iterable[str]) -> dict[str, Standing]:
        """Return the nodes' standings for a file; a node that never voted on it is new."""
        known = self.files.get(path, {})
        return {node: known.get(node, NEW) for node in nodes}

    def node_weights(self, path: str, nodes: Iterable[str], definition: VoteDefinition) -> dict[str, float]:
        """Return each node's weight for a file: that of its history times that of the definition.

        If all weights by history are zero, only the definition's weights count.
        """
        standings = self.standings(path, sorted(nodes))
        base = base_weights(definition.history, list(standings.values()))
        effective = base if any(base) else [1.0] * len(base)
        return {
            node: weight * definition.weights.get(node, 1.0)
            for node, weight in zip(standings, effective, strict=True)
        }

    def updated(self, path: str, tallies: Mapping[str, Tally]) -> Ledger:
        """Return the ledger with one more round of a file; nodes without cells did not vote."""
        voters = {node: tally for node, tally in tallies.items() if tally.cells > 0}
        if not voters:
            return self
        standings = self.standings(path, voters)
        after = {
            node: standings[node].after(1 - tally.differing / tally.cells) for node, tally in voters.items()
        }
        return Ledger({**self.files, path: {**self.files.get(path, {}), **after}})

    def updated_all(self, tallies: Mapping[str, Mapping[str, Tally]]) -> Ledger:
        """Return the ledger with one more round of each of these files."""
        changed = {
            path: Ledger({path: self.files.get(path, {})}).updated(path, of_file).files[path]
            for path, of_file in tallies.items()
            if any(tally.cells > 0 for tally in of_file.values())
        }
        return Ledger({**self.files, **changed})

    def only(self, paths: Collection[str]) -> Ledger:
        """Return the ledger restricted to these files."""
        return Ledger({path: nodes for path, nodes in self.files.items() if path in paths})


class _StoredStanding(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    successes: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    rounds: Annotated[int, Field(ge=1)]

    @model_validator(mode="after")
    def _check_counts(self) -> _StoredStanding:
        if self.successes > self.rounds:
            raise ValueError("more successes than rounds")
        return self


class _LedgerDocument(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    version: Literal[1] = 1
    files: dict[str, dict[str, _StoredStanding]] = {}


def load_ledger(content: bytes | None) -> Ledger:
    """Parse a ledger; return an empty one for None. Raises BrokenLedger."""
    if content is None:
        return Ledger()
    try:
        document = _LedgerDocument.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = " / ".join(map(str, first["loc"])) or "the whole"
        raise BrokenLedger(f"{LEDGER_PATH} cannot be read at {where}: {first['msg']}") from error
    return Ledger(
        {
            path: {node: Standing(stored.successes, stored.rounds) for node, stored in nodes.items()}
            for path, nodes in document.files.items()
        }
    )


def dump_ledger(ledger: Ledger) -> bytes:
    """Return the ledger as JSON, one line per file for readable diffs; equal ledgers give equal bytes."""
    lines = []
    for path, nodes in sorted(ledger.files.items()):
        stored = {
            node: {"successes": float(standing.successes), "rounds": standing.rounds}
            for node, standing in sorted(nodes.items())
        }
        lines.append(f"{json.dumps(path)}: {json.dumps(stored)}")
    files = "{\n" + ",\n".join(lines) + "\n}" if lines else "{}"
    return f'{{"version": 1, "files": {files}}}\n'.encode()


@dataclass(frozen=True, slots=True)
class LedgerState:
    """The ledger before a round, its blob id, and its fault if it could not be read."""

    ledger: Ledger
    id: str | None = None
    fault: str | None = None


def read_ledger(clone: Clone, base: str | None) -> LedgerState:
    """Read the ledger of the base; an unreadable one counts as empty, on every node alike."""
    entry = None if base is None else clone.entry(base, LEDGER_PATH)
    if entry is None or not entry.is_file:
        return LedgerState(Ledger())
    try:
        return LedgerState(load_ledger(clone.read_blob(entry.id)), entry.id)
    except BrokenLedger as error:
        return LedgerState(Ledger(), entry.id, f"history begins anew: {error}")


def updated_ledger(state: LedgerState, definition: VoteDefinition, totals: RoundTotals) -> bytes | None:
    """Return the ledger's bytes after a round, or None if the definition does not use history.

    Files that ground truth no longer has are dropped; undecided files are kept.
    """
    if definition.history == "NONE":
        return None
    updated = state.ledger.updated_all(totals.tallies)
    return dump_ledger(updated.only(updated.files.keys() - totals.removed))
