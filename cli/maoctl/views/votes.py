"""Tables of votes and rounds, and the summary of a round."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from maoctl.output import Column, Document, TableView
from maoctl.text import harmless_line, plain, short_commit

if TYPE_CHECKING:
    from mao_shared.models import evidence
    from mao_shared.models.alarm import RoundSpike
    from mao_shared.models.round import FieldKind, LiveRound

_MAX_SHOWN_VALUE = 60  # characters
_MAX_SAME_FILES = 3  # groups of nodes with the same file


def short(value: str | None, absent: str = "(none)") -> str:
    """Return a value shortened for a table; `absent` for no value."""
    if value is None:
        return absent
    return value if len(value) <= _MAX_SHOWN_VALUE else value[:_MAX_SHOWN_VALUE] + "…"


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
    lambda found: found.tick,
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
    """Return why the round is undecided, what it waits for, and which nodes are missing or flagged."""
    notes = [found.reason] if found.reason else []
    if found.phase == "open" and found.silent:
        notes.append(f"waits for {', '.join(found.silent)}")
    if found.waits_for:
        notes.append(f"waits for round {found.waits_for}")
    if found.phase == "closed":
        notes += [f"{node}: {reason}" for node, reason in found.missing.items()]
    notes += [f"{node}: {reason}" for node, reason in found.flagged.items()]
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
        Column("COMMIT", lambda found, _: short_commit(found.commit), keep_whole=True, spare=2),
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
    abstained = [f"{node} abstains: {why}" for node, why in file.abstained.items()]
    return "; ".join([*file.warnings, *file.notes, *_same_files(file), *abstained])


def _same_files(file: evidence.FileEvidence) -> list[str]:
    """Name the nodes that published the very same file, where others did not."""
    nodes: dict[str, list[str]] = {}
    for node, content in sorted(file.contents.items()):
        nodes.setdefault(content, []).append(node)
    alike = [", ".join(same) for same in nodes.values() if len(same) > 1]
    more = [f"{len(alike) - _MAX_SAME_FILES} more such groups"] if len(alike) > _MAX_SAME_FILES else []
    return [*(f"{same} have the same file" for same in alike[:_MAX_SAME_FILES]), *more]


VOTED_FILE: TableView[evidence.FileEvidence] = TableView(
    "file",
    [
        Column("FILE", lambda file, _: file.path, keep_whole=True),
        Column("METHOD", lambda file, _: file.how),
        Column("KEY", _key),
        Column("CELLS", lambda file, _: file.cells),
        Column("CONTESTED", lambda file, _: file.contested),
        Column("UNDECIDED", lambda file, _: file.conflicts),
        Column("RESULT", lambda file, _: short_commit(file.result), wide=True),
        Column("NOTE", _notes, fold=True),
    ],
    lambda file: file.path,
)


@dataclass(frozen=True)
class VoterRow:
    """A node in a round: its commit and how often it differs, or why it abstained."""

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
    """Return a row for each node of the round."""
    rows = []
    for node in evidence.nodes:
        abstained, votes = evidence.abstained.get(node), evidence.votes.get(node)
        note = f"abstained: {abstained.reason} {abstained.detail}".strip() if abstained else ""
        cells, differing = (votes.cells, votes.differing) if votes else (None, None)
        rows.append(VoterRow(node, evidence.commits.get(node), cells, differing, note))
    return rows


def round_facts(decided: evidence.DecidedRound) -> list[tuple[str, str]]:
    """Return the summary of a round as names and values."""
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
        ("cells", f"{evidence.cells} differ{listed}, {_doubtful(evidence)}"),
        ("notes", "; ".join(evidence.notes)),
    ]


def count_cells(found: evidence.Evidence, file: str | None, shown: int) -> str:
    """Say how many cells differ in a round or one of its files, of which some are shown."""
    part: evidence.Evidence | evidence.FileEvidence | None = found
    if file is not None:
        part = next((entry for entry in found.files if entry.path == file), None)
    if part is None:
        return (
            f"no cell differs in {harmless_line(file or '')}: all nodes have the same, or none has changed it"
        )
    where = "" if file is None else f" in {harmless_line(file)}"
    return f"{part.cells} cells differ{where}, {_doubtful(part)}; {shown} shown"


def _doubtful(found: evidence.Evidence | evidence.FileEvidence) -> str:
    return f"{found.contested} contested, {found.conflicts} undecided"


def unattested_lines(found: evidence.UnattestedCommits) -> list[str]:
    """Return the messages about commits on ground truth that no round made."""
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
        Column("REASON", lambda cell, _: cell.why),
        Column("CONTESTED", lambda cell, _: cell.contested),
        Column(
            "VALUES",
            lambda cell, _: [f"{node}={_observed(cell, value)}" for node, value in cell.values.items()],
            fold=True,
        ),
    ],
    lambda cell: cell.file,
)


def _observed(cell: evidence.ContestedCell | evidence.Explanation, value: str | None) -> str:
    """Return a node's value of a cell: where the cell is about a record or column, whether it has that."""
    thing = "field"
    if not cell.field and cell.why == "row":
        thing = "entry" if cell.key and cell.key[0].startswith("/") else "record"
    elif not cell.key and cell.field:
        thing = "column"
    if value is not None and thing != "field":
        return f"(has the {thing})"
    return short(value, f"(no such {thing})")


@dataclass(frozen=True)
class NodeValue:
    """A node's value of a cell, or in `note` why it has none."""

    node: str
    value: str
    note: str

    def document(self) -> Document:
        return asdict(self)


NODE_VALUE: TableView[NodeValue] = TableView(
    "value",
    [
        Column("NODE", lambda row, _: row.node, keep_whole=True),
        Column("VALUE", lambda row, _: row.value, fold=True),
        Column("NOTE", lambda row, _: row.note, fold=True),
    ],
    lambda row: row.node,
)


def node_values(explanation: evidence.Explanation) -> list[NodeValue]:
    """Return a row for each node of the round."""
    rows = [
        NodeValue(
            node,
            _observed(explanation, value),
            "chosen" if value is not None and value == explanation.chosen else "",
        )
        for node, value in explanation.values.items()
    ]
    return rows + [NodeValue(node, "", why) for node, why in explanation.silent.items()]


def comparison(field: evidence.FieldEvidence | None) -> str:
    """Return in words how the values of a field are compared; empty if that is not known."""
    if field is None:
        return ""
    limits = [limit_text(field.kind, field.tolerance)] if field.tolerance else []
    limits += [_percent(field.error)] if field.error else []
    agree = f", agreeing within {' or '.join(limits)} ({field.noise})" if limits else ""
    unsure = f"; unsure: {field.unsure}" if field.unsure else ""
    return f"{'measured ' if field.measured else ''}{field.kind} ({field.source}){agree}{unsure}"


def limit_text(kind: FieldKind, tolerance: float) -> str:
    """Return how far apart values of a field may be; `tolerance` of dates is in days, of times in seconds."""
    if kind not in ("time", "date", "datetime", "duration"):
        return f"{tolerance:.4g}"
    seconds = tolerance * 86400 if kind == "date" else tolerance
    units = ((86400, "d"), (3600, "h"), (60, "min"))
    size, unit = next(((size, unit) for size, unit in units if seconds and seconds % size == 0), (1, "s"))
    return f"{seconds / size:.4g} {unit}"


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
        Column("P-VALUE", lambda node, _: "<1e-9" if node.chance < 1e-9 else f"{node.chance:.2g}"),
        Column("OUTLIER", lambda node, _: node.strange),
        Column("VOTED", lambda node, _: node.voted, wide=True),
        Column("ABSTAINED", lambda node, _: node.abstained, wide=True),
    ],
    lambda node: node.node,
)


def _origin(spike: RoundSpike, _now: datetime) -> str:
    nodes = ", ".join(spike.nodes)
    return {"node": nodes, "consensus": "consensus", "lagging": f"not in {nodes}"}.get(spike.whose, "")


def _node_value(spike: RoundSpike, _now: datetime) -> str:
    """Return the values of the nodes with the spike; nothing for the consensus, which ground truth shows."""
    values = {} if spike.whose == "consensus" else spike.values
    if len(values) == 1:
        return plain(next(iter(values.values())))
    return ", ".join(f"{node}={plain(value)}" for node, value in values.items())


SPIKE: TableView[RoundSpike] = TableView(
    "spike",
    [
        Column("ROUND", lambda spike, _: spike.round, keep_whole=True),
        Column("METRIC", lambda spike, _: spike.metric),
        Column("ORIGIN", _origin),
        Column("NODE VALUE", _node_value),
        Column("GROUND TRUTH", lambda spike, _: spike.value),
        Column("EXPECTED", lambda spike, _: spike.expected),
    ],
    lambda spike: spike.round,
)
