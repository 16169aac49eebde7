"""Warns of what a definition says about a file without effect, and of lines for which it says too little."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from mao_shared.json_text import parse_json
from mao_shared.models.round import FileRule

from .records import Key, NamedFields, RecordFormat, escape_step
from .versions import ParsedVersion


def warnings_on_rule(
    rule: FileRule, file_format: RecordFormat, readings: Sequence[ParsedVersion]
) -> Iterator[str]:
    """Yield what the definition says of a file that can have no effect."""
    nodes = sum(reading.version.votes for reading in readings)
    if isinstance(rule.rows, int) and rule.rows > nodes:
        yield f"rows: {rule.rows} leaves out every record, since only {nodes} nodes vote on this file"
    declared = dict.fromkeys([*rule.fields, *rule.ignore, *rule.volatile])
    known = {name for reading in readings for name in reading.version.table.columns}
    unknown = [name for name in declared if name.removeprefix("/") not in known | {"*"}]
    if not file_format.tabular:
        unknown = _without_inside(unknown, readings)
    for name in unknown:
        yield f"the definition names the field {name!r}, which no node has in this file"


def _without_inside(names: Sequence[str], readings: Sequence[ParsedVersion]) -> list[str]:
    """Return the names of which JSON versions have no member or entry, at any depth."""
    unused = {name: NamedFields([name]) for name in names}
    for reading in readings:
        if not unused:
            break
        text = reading.content.decode("utf-8-sig")
        if reading.shape == "document":
            _drop_used(unused, parse_json(text), "", "")
        else:
            for record in _records(text):
                _drop_used(unused, record, "", "")
    return list(unused)


def _records(text: str) -> Iterator[Any]:
    """Yield the records of a JSON list, or of JSON lines."""
    try:
        found = parse_json(text)
    except json.JSONDecodeError:
        found = [parse_json(line) for line in text.split("\n") if line.strip()]
    yield from found if isinstance(found, list) else [found]


def _drop_used(unused: dict[str, NamedFields], value: Any, pointer: str, pattern: str) -> None:
    """Remove the names that a member or entry inside of a value has."""
    if not unused or not isinstance(value, dict | list):
        return
    is_object = isinstance(value, dict)
    children: dict[str, Any] = (
        value if isinstance(value, dict) else {str(at): item for at, item in enumerate(value)}
    )
    for name, inner in children.items():
        step = escape_step(name)
        below = f"{pointer}/{step}", f"{pattern}/{step if is_object else '*'}"
        for used in [named for named, fields in unused.items() if fields.has(*below, name)]:
            del unused[used]
        _drop_used(unused, inner, *below)


def warnings_on_lines(height: int, key: Key, readings: Sequence[ParsedVersion]) -> Iterator[str]:
    """Yield why a result without a key may have too many lines.

    Args:
        height: how many records the result has.
    """
    most = max(reading.version.table.height for reading in readings)
    if key.source == "position" and height > most:
        yield (
            f"{height} records, more than any node has ({most}): without a key, a line of which a value "
            "differs may count as another line; declare the key, or as volatile what differs in every line"
        )
