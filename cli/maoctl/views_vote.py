"""The tables of votes and rounds, and their sentences."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from .output import Column, Record, TableView, field
from .text import plain
from .views import SHORT_COMMIT

_SHOWN_VALUE = 60  # letters


def _commit(value: Any) -> str:
    return str(value)[:SHORT_COMMIT] if value else ""


def _voters(record: Record, _now: datetime) -> str:
    return f"{record.get('voters')}/{record.get('nodes')}"


def _key(record: Record, _now: datetime) -> str:
    if record.get("key") is None:
        return ""
    columns = ", ".join(record["key"]) or "position"
    return (
        columns if record.get("key_source") in ("declared", None) else f"{columns} ({record['key_source']})"
    )


def _notes(record: Record, _now: datetime) -> str:
    silent = [f"{node} has no voice: {why}" for node, why in (record.get("abstained") or {}).items()]
    return "; ".join([*(record.get("notes") or []), *silent])


def short(value: Any, absent: str = "(none)") -> str:
    """A value in a table: cut, and told apart from none."""
    if value is None:
        return absent
    text = plain(value)
    return text if len(text) <= _SHOWN_VALUE else text[:_SHOWN_VALUE] + "…"


def _values(record: Record, _now: datetime) -> str:
    return ", ".join(f"{node}={short(value)}" for node, value in (record.get("values") or {}).items())


def _snapshots(record: Record, _now: datetime) -> str:
    brought = record.get("commits") or {n: c for n, c in (record.get("announced") or {}).items() if c}
    return f"{len(brought)}/{len(record.get('nodes') or [])}"


def _attested(record: Record, _now: datetime) -> str:
    computed = [commit for commit in (record.get("computed") or {}).values() if commit]
    same = max(map(computed.count, computed), default=0)
    return f"{max(same, len(record.get('attested') or []))}/{record.get('needed_nodes')}"


def _round_note(record: Record, _now: datetime) -> str:
    """Why it is undecided, what it waits for, and who was caught at what."""
    notes = [record["reason"]] if record.get("reason") else []
    if record.get("phase") == "open" and record.get("silent"):
        notes.append(f"waits for {', '.join(record['silent'])}")
    if record.get("waits_for"):
        notes.append(f"waits for round {record['waits_for']}")
    if record.get("phase") == "closed":
        notes += [f"{node}: {words}" for node, words in (record.get("missing") or {}).items()]
    notes += [f"{node}: {words}" for node, words in (record.get("flagged") or {}).items()]
    return "; ".join(notes)


ROUND = TableView(
    "round",
    [
        Column("ROUND", field("round"), keep_whole=True),
        Column("COMMIT", field("commit", _commit), keep_whole=True),
        Column("VOTED", _voters),
        Column("FILES", field("files")),
        Column("CELLS", field("cells")),
        Column("UNDECIDED", field("conflicts")),
    ],
    key="round",
)
LIVE_ROUND = TableView(
    "round",
    [
        Column("ROUND", field("id"), keep_whole=True),
        Column("DATASET", field("dataset")),
        Column("PHASE", field("phase")),
        Column("SNAPSHOTS", _snapshots),
        Column("ATTESTED", _attested),
        Column("COMMIT", field("commit", _commit), keep_whole=True),
        Column("NOTE", _round_note),
        Column("DEADLINE", field("deadline"), wide=True),
        Column("ATTEMPT", field("attempt"), wide=True),
    ],
    key="id",
)
VOTED_FILE = TableView(
    "file",
    [
        Column("FILE", field("path"), keep_whole=True),
        Column("HOW", field("how")),
        Column("KEY", _key),
        Column("CELLS", field("cells")),
        Column("UNDECIDED", field("conflicts")),
        Column("RESULT", field("result", _commit), wide=True),
        Column("NOTE", _notes),
    ],
    key="path",
)
VOTER = TableView(
    "node",
    [
        Column("NODE", field("node"), keep_whole=True),
        Column("COMMIT", field("commit", _commit), keep_whole=True),
        Column("CELLS", field("cells")),
        Column("DIFFERING", field("differing")),
        Column("NOTE", field("note")),
    ],
    key="node",
)
CELL = TableView(
    "cell",
    [
        Column("FILE", field("file"), keep_whole=True),
        Column("KEY", field("key")),
        Column("FIELD", field("field")),
        Column("CHOSEN", lambda record, _: short(record.get("chosen"))),
        Column("WHY", field("why")),
        Column("VALUES", _values),
    ],
    key="file",
)
SAID = TableView(
    "value",
    [
        Column("NODE", field("node"), keep_whole=True),
        Column("VALUE", field("value")),
        Column("", field("note")),
    ],
    key="node",
)


def voters_of(evidence: Record) -> list[Record]:
    """A row a node: its commit and how often it differs, or why it has no voice."""
    rows = []
    for node in evidence["nodes"]:
        abstained = evidence["abstained"].get(node)
        note = "" if abstained is None else f"abstained: {abstained['reason']} {abstained.get('detail', '')}"
        votes = evidence["votes"].get(node) or {}
        rows.append({"node": node, "commit": evidence["commits"].get(node), **votes, "note": note.strip()})
    return rows


def round_facts(decided: Record) -> list[tuple[str, str]]:
    """What a person asks about a round first."""
    evidence = decided["evidence"]
    how = ", ".join(f"{count} {word}" for word, count in evidence["decided"].items())
    listed = evidence["cells_listed"]
    more = f" ({listed} listed)" if listed < evidence["cells"] else ""
    return [
        ("round", evidence["round"]),
        ("tick", evidence["tick"]),
        ("commit", decided["commit"]),
        ("builds on", evidence["base"] or "nothing"),
        ("voted", f"{len(evidence['votes'])} of {len(evidence['nodes'])} nodes"),
        ("files", how or "no file differs"),
        ("cells", f"{evidence['cells']} differ{more}, {evidence['conflicts']} undecided"),
    ]


def stray_lines(strays: Record) -> list[str]:
    """What is to be said of commits on ground truth that no round made."""
    lines = []
    if many := strays["after"] + strays["between"]:
        commits = "1 commit on ground-truth was" if many == 1 else f"{many} commits on ground-truth were"
        lines.append(
            f"warning: {commits} made by no round; newest round is {strays['newest_round']}, tip is "
            f"{_commit(strays['tip'])}"
        )
    if strays["before"]:
        lines.append(f"{strays['before']} commits before the first round were made by a node alone")
    return lines


def said(explanation: Record) -> list[Record]:
    """A row a node: what it says of the cell, or why nothing."""
    rows = [
        {
            "node": node,
            "value": short(value, "(no such field)"),
            "note": "chosen" if value == explanation["chosen"] and value is not None else "",
        }
        for node, value in explanation["values"].items()
    ]
    return rows + [{"node": node, "value": "", "note": why} for node, why in explanation["silent"].items()]


def _percent(value: Any) -> str:
    return "" if value is None else f"{100 * value:.3g} %"


def _chance(value: Any) -> str:
    return "" if value is None else "<1e-9" if value < 1e-9 else f"{value:.2g}"


RANKED = TableView(
    "node",
    [
        Column("NODE", field("node"), keep_whole=True),
        Column("CELLS", field("cells")),
        Column("DIFFERING", field("differing")),
        Column("RATE", field("rate", _percent)),
        Column("OTHERS", field("others", _percent)),
        Column("CHANCE", field("chance", _chance)),
        Column("STRANGE", field("strange")),
        Column("VOTED", field("voted"), wide=True),
        Column("ABSTAINED", field("abstained"), wide=True),
    ],
    key="node",
)


def _whose(record: Record, _now: datetime) -> str:
    nodes = ", ".join(record["nodes"])
    words = {"node": nodes, "consensus": "consensus", "lagging": f"not in {nodes}"}
    return words.get(str(record["whose"])) or ""


def _own_value(record: Record, _now: datetime) -> str:
    """Of the nodes that are named; of everybody's spike it would be ground truth's again."""
    values = {} if record["whose"] == "consensus" else record.get("values") or {}
    if len(values) == 1:
        return plain(next(iter(values.values())))
    return ", ".join(f"{node}={plain(value)}" for node, value in values.items())


SPIKE = TableView(
    "spike",
    [
        Column("ROUND", field("round"), keep_whole=True),
        Column("METRIC", field("metric")),
        Column("WHOSE", _whose),
        Column("THEIR VALUE", _own_value),
        Column("GROUND TRUTH", field("value")),
        Column("EXPECTED", field("expected")),
    ],
    key="round",
)
