"""Reads one field of one record from the contents that a file had over time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import reduce
from itertools import islice
from operator import and_
from typing import Any

from mao_shared.json_text import parse_json
from mao_shared.models.dataset import ValueState
from mao_shared.models.round import FileRule

from . import records
from .records import POSITION, Key, NotRecords, RecordFormat

MAX_COMPARED_NAMES = 2000  # names of records or fields that are compared with what was typed
MAX_NAME = 100  # characters of such a name
_ROW = "\0row"  # `load` lets no NUL through
_WHOLE = ("value", "")
"""Fields that mean the value at a document's path itself, as in the cells of a vote."""


@dataclass(frozen=True, slots=True)
class Question:
    """Which value is asked for. `keys`: the possible readings of the typed key; `by`: declared key columns.

    Of a JSON document that is no list of records, the key is the path of an object or value, and the field a
    member, the JSON pointer of something inside, or `value`.
    """

    keys: Sequence[Sequence[str]]
    field: str
    by: Sequence[str] = ()

    @property
    def typed(self) -> str:
        return ",".join(self.keys[-1])


@dataclass(frozen=True, slots=True)
class Reading:
    """The value in one content, or the reason why there is none. `key`: of the record, as spelt there.

    `digest`: of the whole value, if `value` has only its beginning.
    """

    state: ValueState
    value: str | None = None
    key: Mapping[str, str] = field(default_factory=dict)
    reason: str | None = None
    digest: str = ""

    @property
    def content(self) -> tuple[str, str | None, str]:
        """What two readings of equal values have in common."""
        return self.state, self.value, self.digest


class ValueReader:
    """Reads the contents of one file, the newest first: it decides the key if none is declared.

    Args:
        rule: what the dataset's vote definition declares for the file; its key goes before `voted_key`,
            by which the newest round matched the records.
    """

    def __init__(
        self,
        question: Question,
        file_format: RecordFormat,
        rule: FileRule | None = None,
        voted_key: Sequence[str] = (),
    ) -> None:
        self._question, self._format, self._rule = question, file_format, rule or FileRule()
        declared = tuple(question.by or self._rule.key or voted_key)
        self._declared = (
            Key(declared, "declared", fold=tuple(self._rule.fold), nfc=True) if declared else None
        )
        self._inferred: Key | None = None
        self._hint: str | None = None

    @property
    def hint(self) -> str:
        """What to try if nothing was found, by the newest content that could be read; may be empty."""
        return self._hint or ""

    @property
    def key_words(self) -> str:
        """The key by which records were looked up, in words."""
        key = self._declared or self._inferred
        if key is None:
            return "a value's path"
        return f"{', '.join(key.columns) or 'its number, from 1'} ({key.source})"

    def read(self, content: bytes) -> Reading:
        """Return the value in a content of the file."""
        try:
            if self._format is not RecordFormat.JSON:
                return self._in_table(records.load(content, self._format))
            document = records.load_json_document(content)
            if records.is_record_list(document):
                return self._in_table(records.record_table(document))
            return self._in_document(document)
        except NotRecords as error:
            return Reading("unreadable", reason=f"{error}")

    # records

    def _in_table(self, table: records.Table) -> Reading:
        key = self._key_of(table)
        searched = table
        if any(name.startswith("/") for name in key.columns):
            layout = records.plan_object_fields([table], [1], self._rule)
            searched = records.with_object_fields(table, layout.object_fields, records.Reader(self._rule))
        absent = [name for name in key.columns if name not in searched.columns]
        if absent and table.height:
            return Reading("unreadable", reason=f"it has no column {absent[0]!r}, which the key names")
        matches = (find_rows(searched, key, parts) for parts in self._question.keys)
        rows = next(filter(None, matches), [])
        if not rows:
            self._hint = self._hint or _record_hint(searched, key, self._question)
            return Reading("no-record", reason=f"no record {self._question.typed!r}")
        spelt = {name: searched[name][rows[0]] for name in key.columns} or {POSITION: str(rows[0] + 1)}
        if len(rows) > 1:
            return Reading("unreadable", key=spelt, reason=f"{len(rows)} of its records have this key")
        record = table.row(rows[0], named=True)
        if (value := _field_of(record, self._question.field)) is None:
            self._hint = self._hint or _near(self._question.field, record, "fields")
            return Reading("no-field", key=spelt, reason=f"the record has no field {self._question.field!r}")
        return Reading("value", value, spelt)

    def _key_of(self, table: records.Table) -> Key:
        """Return the declared key, or the one of the newest content if this one has its columns."""
        if self._declared is not None:
            return self._declared
        if self._inferred is not None and set(self._inferred.columns) <= set(table.columns):
            return self._inferred
        key = records.choose_key([table], (), self._rule.fold)
        if self._inferred is None and table.height:
            self._inferred = key
        return key

    # JSON documents

    def _in_document(self, document: Any) -> Reading:
        path = self._question.keys[0][0] if self._question.keys[0] else ""
        if path and not path.startswith("/"):
            path = f"/{records.escape_step(path)}"
        spelt = {"path": path}
        around = records.find_value(document, path)
        if around is None:
            self._hint = self._hint or _path_hint(document, path)
            return Reading("no-record", reason=f"there is nothing at {path!r}")
        name, value = self._question.field, around[1]
        inside = name if name.startswith("/") else f"/{records.escape_step(name)}"
        found = records.find_value(value, inside) if name else None
        if found is None and name not in _WHOLE:
            members = list(value) if isinstance(value, dict) else []
            self._hint = self._hint or _near(name, members, "members")
            return Reading("no-field", key=spelt, reason=f"there is no {name!r} at {path!r}")
        return Reading("value", records.cell_text(value if found is None else found[1]), spelt)


def find_rows(table: records.Table, key: Key, values: Sequence[str]) -> list[int]:
    """Return the indices of the records that `records.find_records` finds, faster if they are spelt so."""
    if key.columns and len(values) == len(key.columns) and table.height:
        masks = [
            (table[name] == text) | (table[name] == f'"{text}"')
            for name, text in zip(key.columns, values, strict=True)
        ]
        found = reduce(and_, masks)
        if found.any():
            return list(found.arg_true())
        if key.is_exact:
            return []
    numbered = table.with_row_index(_ROW)
    return list(records.find_records(numbered, key, values)[_ROW])


def _field_of(record: Mapping[str, str | None], name: str) -> str | None:
    """Return a field of a record, or what is at a JSON pointer inside of one; None if there is none."""
    if name in record or not name.startswith("/"):
        return record.get(name)
    text = record.get(records.top_field(name))
    if text is None:
        return None
    around = f"/{name.split('/')[1]}"
    try:
        found = records.find_value(parse_json(text), name[len(around) :])
    except (ValueError, RecursionError):  # a text of a CSV file
        return None
    return None if found is None else records.cell_text(found[1])


# hints


def close_names(typed: str, known: Iterable[str]) -> list[str]:
    """Return up to three of the known names that are similar to the typed one, the most similar first."""
    folded = {name[:MAX_NAME].casefold(): name for name in islice(known, MAX_COMPARED_NAMES)}
    return [folded[name] for name in get_close_matches(typed[:MAX_NAME].casefold(), folded, cutoff=0.6)]


def _near(typed: str, known: Iterable[str], what: str) -> str:
    names = list(islice(known, MAX_COMPARED_NAMES))
    near = close_names(typed, names)
    if near:
        return f"Did you mean {' or '.join(map(repr, near))}?"
    shown = ", ".join(name[:MAX_NAME] for name in names[:20])
    return f"Its {what}: {shown}." if shown else ""


def _record_hint(table: records.Table, key: Key, question: Question) -> str:
    """Return similar keys, or the column that has what was typed."""
    wanted = [form for parts in question.keys for part in parts[:1] for form in (part, f'"{part}"')]
    holders = [name for name in table.columns if name not in key.columns and table[name].is_in(wanted).any()]
    if holders:
        return f"The column {holders[0]!r} has it: declare the key with --by {holders[0]}."
    if len(key.columns) != 1:
        return ""
    texts = table[key.columns[0]].head(MAX_COMPARED_NAMES).drop_nulls()
    near = close_names(question.typed, (text.strip('"') for text in texts))
    return f"Did you mean {' or '.join(map(repr, near))}?" if near else ""


def _path_hint(document: Any, path: str) -> str:
    """Return names similar to the first step of a path that leads nowhere."""
    at, _, missing = path.rpartition("/")
    while at and records.find_value(document, at) is None:
        at, _, missing = at.rpartition("/")
    around = records.find_value(document, at)
    return _near(missing, list(around[1]) if around and isinstance(around[1], dict) else [], "members")
