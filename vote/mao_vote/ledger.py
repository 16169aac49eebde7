"""The history of the nodes' votes by file, kept in the dataset: what VDX's history rules weigh them by.

It is stored beside the ground truth it was voted into, so that a recomputed round starts from the same
history. A round of a file counts once for a node, as a success by the share of the cells in which it agreed
with the result. It is written while the vote's definition asks for history, and kept as it is otherwise.
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
    """The bytes are no ledger; says where not."""


@dataclass(frozen=True, slots=True)
class Ledger:
    """Standings by file and node. Never changed in place."""

    files: Mapping[str, Mapping[str, Standing]] = field(default_factory=dict)

    def standings(self, path: str, nodes: Iterable[str]) -> dict[str, Standing]:
        """Those before this round; a node that never voted on the file is new."""
        known = self.files.get(path, {})
        return {node: known.get(node, NEW) for node in nodes}

    def node_weights(self, path: str, nodes: Iterable[str], definition: VoteDefinition) -> dict[str, float]:
        """What each node's voice counts for in this file: by its history, times the definition's own weight.

        Where the rule leaves nobody any weight, all count by the definition's.
        """
        standings = self.standings(path, sorted(nodes))
        base = base_weights(definition.history, list(standings.values()))
        counted = base if any(base) else [1.0] * len(base)
        return {
            node: weight * definition.weights.get(node, 1.0)
            for node, weight in zip(standings, counted, strict=True)
        }

    def updated(self, path: str, tallies: Mapping[str, Tally]) -> Ledger:
        """With one more round of this file; nodes without any cell in it did not vote."""
        voted = {node: each for node, each in tallies.items() if each.cells > 0}
        if not voted:
            return self
        before = self.standings(path, voted)
        after = {node: before[node].after(1 - each.differing / each.cells) for node, each in voted.items()}
        return Ledger({**self.files, path: {**self.files.get(path, {}), **after}})

    def updated_all(self, tallies: Mapping[str, Mapping[str, Tally]]) -> Ledger:
        """With one more round of each of these files."""
        changed = {
            path: Ledger({path: self.files.get(path, {})}).updated(path, each).files[path]
            for path, each in tallies.items()
            if any(one.cells > 0 for one in each.values())
        }
        return Ledger({**self.files, **changed})

    def only(self, paths: Collection[str]) -> Ledger:
        """Without the files that are no more."""
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
    """The ledger in these bytes; an empty one for None. Raises BrokenLedger."""
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
            path: {node: Standing(each.successes, each.rounds) for node, each in nodes.items()}
            for path, nodes in document.files.items()
        }
    )


def dump_ledger(ledger: Ledger) -> bytes:
    """The same bytes for the same ledger, however it was built up; a line a file, to read well in a diff."""
    lines = []
    for path, nodes in sorted(ledger.files.items()):
        stored = {
            node: {"successes": float(each.successes), "rounds": each.rounds}
            for node, each in sorted(nodes.items())
        }
        lines.append(f"{json.dumps(path)}: {json.dumps(stored)}")
    files = "{\n" + ",\n".join(lines) + "\n}" if lines else "{}"
    return f'{{"version": 1, "files": {files}}}\n'.encode()


@dataclass(frozen=True, slots=True)
class LedgerState:
    """The ledger before a round, git's id of it, and what was wrong with it, if anything."""

    ledger: Ledger
    id: str | None = None
    fault: str | None = None


def read_ledger(clone: Clone, base: str | None) -> LedgerState:
    """What the base has; a ledger that cannot be read starts again empty, the same on every node."""
    entry = None if base is None else clone.entry(base, LEDGER_PATH)
    if entry is None or not entry.is_file:
        return LedgerState(Ledger())
    try:
        return LedgerState(load_ledger(clone.read_blob(entry.id)), entry.id)
    except BrokenLedger as error:
        return LedgerState(Ledger(), entry.id, f"history begins anew: {error}")


def updated_ledger(kept: LedgerState, definition: VoteDefinition, count: RoundTotals) -> bytes | None:
    """With this round's record files that are new or changed; None where no history is kept.

    What ground truth does not have any more is dropped, but what is merely undecided stays.
    """
    if definition.history == "NONE":
        return None
    updated = kept.ledger.updated_all(count.tallies)
    return dump_ledger(updated.only(updated.files.keys() - count.gone))
