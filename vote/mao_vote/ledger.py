"""The ledger: what rounds leave behind for later rounds, stored in the dataset with the ground truth.

A recomputed round starts from the same ledger. It has three parts:

* Each node's voting history by file, from which VDX's history rules derive weights. Each round of a file
  counts once per node; its success is the fraction of cells in which the node agreed with the result. It is
  kept only if the vote definition uses history.
* For each field, a sample of the cells in which nodes differed (records/cells/memory.py). Files whose paths
  differ only in digits, such as one file a day, share it.
* For each file over which nodes differ, what they had when it was decided (settled.py).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import reduce
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator

from mao_git import Clone
from mao_shared.models.evidence import Tally
from mao_shared.models.round import VoteDefinition

from .evidence import MAX_REMEMBERED_FIELDS, RoundTotals, file_kind, printable_path
from .records import Memory, PastCells, extend_memory, is_within_bounds
from .settled import MAX_SETTLED_FILES, Settled, rules_digest
from .vdx.standing import NEW, Standing, base_weights

LEDGER_PATH = ".mao/history.json"
MAX_COUNT = 2**53  # of rounds or cells, the integers that floats hold
_LINE_END = ",\n"


class BrokenLedger(ValueError):
    """The bytes are not a valid ledger; the message names the place."""


@dataclass(frozen=True, slots=True)
class FieldPast:
    """What is remembered of a field, and the tick of the round that added to it last."""

    tick: datetime
    memory: Memory


@dataclass(frozen=True, slots=True)
class Ledger:
    """Standings by file and node, and the past of fields by kind of file and field. Immutable.

    `settled`: the decisions on files, by path, under the rules with the digest `settled_by`.
    """

    files: Mapping[str, Mapping[str, Standing]] = field(default_factory=dict)
    fields: Mapping[tuple[str, str], FieldPast] = field(default_factory=dict)
    settled: Mapping[str, Settled] = field(default_factory=dict)
    settled_by: str = ""

    def settling(self, decisions: Mapping[str, Settled], digest: str) -> Ledger:
        """Return the ledger with these decisions instead of those before."""
        named = {printable_path(path): decision for path, decision in decisions.items()}
        return replace(
            self,
            settled={path: named[path] for path in sorted(named)[:MAX_SETTLED_FILES]},
            settled_by=digest if named else "",
        )

    def memory(self, path: str) -> dict[str, Memory]:
        """Return what is remembered of the fields of a file."""
        kind = file_kind(path)
        return {name: past.memory for (of_kind, name), past in self.fields.items() if of_kind == kind}

    def remembering(self, samples: Mapping[tuple[str, str], Memory], tick: datetime) -> Ledger:
        """Return the ledger with the samples of one more round, by kind of file and field.

        The fields that were voted last are kept.
        """
        fields = dict(self.fields)
        for at, cells in samples.items():
            before = fields[at].memory if at in fields else ()
            fields[at] = FieldPast(tick, reduce(extend_memory, cells, before))
        latest = sorted(fields, key=lambda at: (-fields[at].tick.timestamp(), at))
        return replace(self, fields={at: fields[at] for at in latest[:MAX_REMEMBERED_FIELDS]})

    def standings(self, path: str, nodes: Iterable[str]) -> dict[str, Standing]:
        """Return the nodes' standings for a file; a node that never voted on it is new."""
        known = self.files.get(printable_path(path), {})
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
        standings, path = self.standings(path, voters), printable_path(path)
        after = {
            node: standings[node].after(1 - tally.differing / tally.cells) for node, tally in voters.items()
        }
        return replace(self, files={**self.files, path: {**self.files.get(path, {}), **after}})

    def updated_all(self, tallies: Mapping[str, Mapping[str, Tally]]) -> Ledger:
        """Return the ledger with one more round of each of these files."""
        changed = {
            path: Ledger({path: self.files.get(path, {})}).updated(path, of_file).files[path]
            for path, of_file in ((printable_path(path), of_file) for path, of_file in tallies.items())
            if any(tally.cells > 0 for tally in of_file.values())
        }
        return replace(self, files={**self.files, **changed})

    def only(self, paths: Collection[str]) -> Ledger:
        """Return the ledger with the standings in these files only."""
        return replace(self, files={path: nodes for path, nodes in self.files.items() if path in paths})


class _StoredStanding(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    successes: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    rounds: Annotated[int, Field(ge=1, le=MAX_COUNT)]

    @model_validator(mode="after")
    def _check_counts(self) -> _StoredStanding:
        if self.successes > self.rounds:
            raise ValueError("more successes than rounds")
        return self


class _StoredCells(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    agreed: dict[str, Annotated[int, Field(ge=0, le=MAX_COUNT)]]
    cells: list[dict[str, str]]
    places: list[str]


class _StoredPast(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    tick: Annotated[AwareDatetime, Field(strict=False)]  # one without a zone would depend on the node's
    rounds: list[_StoredCells]

    @model_validator(mode="after")
    def _check_size(self) -> _StoredPast:
        if not is_within_bounds([PastCells(past.agreed, past.cells, past.places) for past in self.rounds]):
            raise ValueError("more or longer values than are remembered")
        return self


class _StoredDecision(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    round: str
    result: str
    contents: dict[str, str]


class _LedgerDocument(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    version: Literal[1, 2] = 2
    files: dict[str, dict[str, _StoredStanding]] = {}
    fields: dict[str, dict[str, _StoredPast]] = {}
    settled: dict[str, _StoredDecision] = {}
    settled_by: str = ""

    @model_validator(mode="after")
    def _check_fields(self) -> _LedgerDocument:
        if sum(map(len, self.fields.values())) > MAX_REMEMBERED_FIELDS:
            raise ValueError("more fields than are remembered")
        return self


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
        },
        {
            (kind, name): FieldPast(
                stored.tick, [PastCells(past.agreed, past.cells, past.places) for past in stored.rounds]
            )
            for kind, fields in document.fields.items()
            for name, stored in fields.items()
        },
        {
            path: Settled(stored.round, stored.result, stored.contents)
            for path, stored in document.settled.items()
        },
        document.settled_by,
    )


def dump_ledger(ledger: Ledger, version: Literal[1, 2] = 2) -> bytes:
    """Return the ledger as JSON, one line per file or field; equal ledgers give equal bytes.

    Args:
        version: of the format; 1 has no fields.
    """
    files = {
        path: {
            node: {"successes": float(standing.successes), "rounds": standing.rounds}
            for node, standing in sorted(nodes.items())
        }
        for path, nodes in ledger.files.items()
    }
    parts = [f'"files": {_dump_lines(files)}']
    if version > 1:
        kinds: dict[str, dict[str, dict[str, Any]]] = {}
        for (kind, name), past in sorted(ledger.fields.items()):
            rounds = [
                {"agreed": cells.agreed, "cells": cells.cells, "places": cells.places}
                for cells in past.memory
            ]
            kinds.setdefault(kind, {})[name] = {"tick": past.tick.isoformat(), "rounds": rounds}
        lines = (f"{json.dumps(kind)}: {_dump_lines(fields)}" for kind, fields in kinds.items())
        parts.append(f'"fields": {{{_LINE_END.join(lines)}}}')
        settled = {
            path: {"round": found.round, "result": found.result, "contents": found.contents}
            for path, found in ledger.settled.items()
        }
        parts.append(f'"settled_by": {json.dumps(ledger.settled_by)}, "settled": {_dump_lines(settled)}')
    return f'{{"version": {version}, {", ".join(parts)}}}\n'.encode()


def _dump_lines(members: Mapping[str, object]) -> str:
    lines = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in sorted(members.items())]
    return "{\n" + _LINE_END.join(lines) + "\n}" if lines else "{}"


@dataclass(frozen=True, slots=True)
class LedgerState:
    """The ledger before a round, its blob id, and its fault if it could not be read."""

    ledger: Ledger
    id: str | None = None
    fault: str | None = None


def read_ledger(clone: Clone, base: str | None, rules: int) -> LedgerState:
    """Read the ledger of the base; an unreadable one counts as empty, on every node alike.

    The fault becomes evidence. Only rules 3 give it in the words of pydantic, which depend on its version.
    """
    entry = None if base is None else clone.entry(base, LEDGER_PATH)
    if entry is None or not entry.is_file:
        return LedgerState(Ledger())
    try:
        return LedgerState(load_ledger(clone.read_blob(entry.id)), entry.id)
    except BrokenLedger as error:
        fault = str(error) if rules == 3 else f"{LEDGER_PATH} cannot be read"
        return LedgerState(Ledger(), entry.id, f"history begins anew: {fault}")


def updated_ledger(
    state: LedgerState,
    definition: VoteDefinition,
    totals: RoundTotals,
    tick: datetime,
    rules: int,
    settled: Mapping[str, Settled],
) -> bytes | None:
    """Return the ledger's bytes after a round, or None if nothing is to be kept.

    Standings in files that ground truth no longer has are dropped; those in undecided files are kept.

    Args:
        settled: the decisions that hold after the round, by path.
    """
    has_memory = rules > 3 and definition.memory
    updated = state.ledger
    if definition.history == "NONE" and not (has_memory or updated.fields or updated.settled):
        return None
    if definition.history != "NONE":
        updated = updated.updated_all(totals.tallies)
        updated = updated.only(updated.files.keys() - {printable_path(path) for path in totals.removed})
    if rules == 3:
        return dump_ledger(updated, 1)
    updated = updated.remembering(totals.samples, tick) if has_memory else replace(updated, fields={})
    updated = updated.settling(settled, rules_digest(definition, rules))
    return None if updated == state.ledger else dump_ledger(updated)
