"""The tables of votes and rounds, and what a person asks about one first."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from maoctl.output import Column, Document, TableView
from maoctl.text import plain, short_commit

if TYPE_CHECKING:
    from mao_shared.models import evidence
    from mao_shared.models.alarm import RoundSpike
    from mao_shared.models.round import LiveRound

_SHOWN_VALUE = 60  # letters


def short(value: str | None, absent: str = "(none)") -> str:
    """A value in a table: shortened, and distinguishable from no value."""
    if value is None:
        return absent
    return value if len(value) <= _SHOWN_VALUE else value[:_SHOWN_VALUE] + "…"


ROUND: TableView[evidence.RoundSummary] = TableView(
    "round",
    [
        Column("ROUND", lambda found, _: found.round, keep_whole=True),
        Column("COMMIT", lambda found, _: short_commit(found.commit), keep_whole=True),
        Column("VOTED", lambda found, _: f"{found.voters}/{found.nodes}"),
        Column("FILES", lambda found, _: found.files),
        Column("CELLS", lambda found, _: found.cells),
        Column("UNDECIDED", lambda found, _: found.conflicts),
    ],
    lambda found: found.round,
)
DECIDED: TableView[evidence.DecidedRound] = TableView(
    "round",
    [Column("ROUND", lambda found, _: found.evidence.round)],
    lambda found: found.evidence.round,
)


def _attested(found: LiveRound, _now: datetime) -> str:
    computed = [commit for commit in found.computed.values() if commit]
    same = max(map(computed.count, computed), default=0)
    return f"{max(same, len(found.attested))}/{found.needed_nodes}"


def _round_note(found: LiveRound, _now: datetime) -> str:
    """Why it is undecided, what it waits for, and who was caught at what."""
    notes = [found.reason] if found.reason else []
    if found.phase == "open" and found.silent:
        notes.append(f"waits for {', '.join(found.silent)}")
    if found.waits_for:
        notes.append(f"waits for round {found.waits_for}")
    if found.phase == "closed":
        notes += [f"{node}: {words}" for node, words in found.missing.items()]
    notes += [f"{node}: {words}" for node, words in found.flagged.items()]
    return "; ".join(notes)


LIVE_ROUND: TableView[LiveRound] = TableView(
    "round",
    [
        Column("ROUND", lambda found, _: found.id, keep_whole=True),
        Column("DATASET", lambda found, _: found.dataset),
        Column("PHASE", lambda found, _: found.phase),
        Column(
            "SNAPSHOTS",
            lambda found, _: (
                f"{len(found.commits or [*filter(None, found.announced.values())])}/{len(found.nodes)}"
            ),
        ),
        Column("ATTESTED", _attested),
        Column("COMMIT", lambda found, _: short_commit(found.commit), keep_whole=True),
        Column("NOTE", _round_note),
        Column("DEADLINE", lambda found, _: found.deadline, wide=True),
        Column("ATTEMPT", lambda found, _: found.attempt, wide=True),
    ],
    lambda found: found.id,
)


def _key(file: evidence.FileEvidence, _now: datetime) -> str:
    if file.key is None:
        return ""
    columns = ", ".join(file.key) or "position"
    return columns if file.key_source in ("declared", None) else f"{columns} ({file.key_source})"


def _notes(file: evidence.FileEvidence, _now: datetime) -> str:
    silent = [f"{node} has no voice: {why}" for node, why in file.abstained.items()]
    return "; ".join([*file.notes, *silent])


VOTED_FILE: TableView[evidence.FileEvidence] = TableView(
    "file",
    [
        Column("FILE", lambda file, _: file.path, keep_whole=True),
        Column("HOW", lambda file, _: file.how),
        Column("KEY", _key),
        Column("CELLS", lambda file, _: file.cells),
        Column("UNDECIDED", lambda file, _: file.conflicts),
        Column("RESULT", lambda file, _: short_commit(file.result), wide=True),
        Column("NOTE", _notes),
    ],
    lambda file: file.path,
)


@dataclass(frozen=True)
class VoterRow:
    """A node in a round: its commit and how often it differs, or why it has no voice."""

    node: str
    commit: str | None
    cells: int | None
    differing: int | None
    note: str

    def document(self) -> Document:
        return asdict(self)


VOTER: TableView[VoterRow] = TableView(
    "node",
    [
        Column("NODE", lambda voter, _: voter.node, keep_whole=True),
        Column("COMMIT", lambda voter, _: short_commit(voter.commit), keep_whole=True),
        Column("CELLS", lambda voter, _: voter.cells),
        Column("DIFFERING", lambda voter, _: voter.differing),
        Column("NOTE", lambda voter, _: voter.note),
    ],
    lambda voter: voter.node,
)


def list_voters(evidence: evidence.Evidence) -> list[VoterRow]:
    """A row a node."""
    rows = []
    for node in evidence.nodes:
        abstained, votes = evidence.abstained.get(node), evidence.votes.get(node)
        note = f"abstained: {abstained.reason} {abstained.detail}".strip() if abstained else ""
        cells, differing = (votes.cells, votes.differing) if votes else (None, None)
        rows.append(VoterRow(node, evidence.commits.get(node), cells, differing, note))
    return rows


def round_facts(decided: evidence.DecidedRound) -> list[tuple[str, str]]:
    """What a person asks about a round first."""
    evidence = decided.evidence
    how = ", ".join(f"{count} {word}" for word, count in evidence.decided.items())
    listed = f" ({evidence.cells_listed} listed)" if evidence.cells_listed < evidence.cells else ""
    return [
        ("round", evidence.round),
        ("tick", plain(evidence.tick)),
        ("commit", decided.commit),
        ("builds on", evidence.base or "nothing"),
        ("voted", f"{len(evidence.votes)} of {len(evidence.nodes)} nodes"),
        ("files", how or "no file differs"),
        ("cells", f"{evidence.cells} differ{listed}, {evidence.conflicts} undecided"),
    ]


def unattested_lines(found: evidence.UnattestedCommits) -> list[str]:
    """What is to be said of commits on ground truth that no round made."""
    lines = [f"warning: {found.fault}"] if found.fault else []
    if found.before:
        lines.append(f"{found.before} commits before the first round were made by a node alone")
    return lines


CELL: TableView[evidence.ContestedCell] = TableView(
    "cell",
    [
        Column("FILE", lambda cell, _: cell.file, keep_whole=True),
        Column("KEY", lambda cell, _: cell.key),
        Column("FIELD", lambda cell, _: cell.field),
        Column("CHOSEN", lambda cell, _: short(cell.chosen)),
        Column("WHY", lambda cell, _: cell.why),
        Column("VALUES", lambda cell, _: [f"{node}={short(value)}" for node, value in cell.values.items()]),
    ],
    lambda cell: cell.file,
)


@dataclass(frozen=True)
class NodeValue:
    """What a node says of a cell, or in `note` why nothing."""

    node: str
    value: str
    note: str

    def document(self) -> Document:
        return asdict(self)


NODE_VALUE: TableView[NodeValue] = TableView(
    "value",
    [
        Column("NODE", lambda each, _: each.node, keep_whole=True),
        Column("VALUE", lambda each, _: each.value),
        Column("", lambda each, _: each.note),
    ],
    lambda each: each.node,
)


def node_values(explanation: evidence.Explanation) -> list[NodeValue]:
    """A row a node."""
    rows = [
        NodeValue(
            node,
            short(value, "(no such field)"),
            "chosen" if value is not None and value == explanation.chosen else "",
        )
        for node, value in explanation.values.items()
    ]
    return rows + [NodeValue(node, "", why) for node, why in explanation.silent.items()]


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.3g} %"


RANKED: TableView[evidence.RankedNode] = TableView(
    "node",
    [
        Column("NODE", lambda node, _: node.node, keep_whole=True),
        Column("CELLS", lambda node, _: node.cells),
        Column("DIFFERING", lambda node, _: node.differing),
        Column("RATE", lambda node, _: _percent(node.rate)),
        Column("OTHERS", lambda node, _: _percent(node.others)),
        Column("CHANCE", lambda node, _: "<1e-9" if node.chance < 1e-9 else f"{node.chance:.2g}"),
        Column("STRANGE", lambda node, _: node.strange),
        Column("VOTED", lambda node, _: node.voted, wide=True),
        Column("ABSTAINED", lambda node, _: node.abstained, wide=True),
    ],
    lambda node: node.node,
)


def _whose(spike: RoundSpike, _now: datetime) -> str:
    nodes = ", ".join(spike.nodes)
    return {"node": nodes, "consensus": "consensus", "lagging": f"not in {nodes}"}.get(spike.whose, "")


def _own_value(spike: RoundSpike, _now: datetime) -> str:
    """Of the nodes that are named; of everybody's spike it would be ground truth's again."""
    values = {} if spike.whose == "consensus" else spike.values
    if len(values) == 1:
        return plain(next(iter(values.values())))
    return ", ".join(f"{node}={plain(value)}" for node, value in values.items())


SPIKE: TableView[RoundSpike] = TableView(
    "spike",
    [
        Column("ROUND", lambda spike, _: spike.round, keep_whole=True),
        Column("METRIC", lambda spike, _: spike.metric),
        Column("WHOSE", _whose),
        Column("THEIR VALUE", _own_value),
        Column("GROUND TRUTH", lambda spike, _: spike.value),
        Column("EXPECTED", lambda spike, _: spike.expected),
    ],
    lambda spike: spike.round,
)
