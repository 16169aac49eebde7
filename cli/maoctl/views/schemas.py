"""The table of the fields of record files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from maoctl.output import Column, Document, TableView

from .votes import limit_text

if TYPE_CHECKING:
    from mao_shared.models.round import FileRule
    from mao_shared.models.schema import FieldSchema, FileSchema, Schema

_ORDERS = {"dmy": "day, month", "mdy": "month, day"}


@dataclass(frozen=True)
class FieldRow:
    """A field of a record file, or its key."""

    file: str
    field: str
    kind: str
    source: str
    spelling: str = ""
    missing: str = ""
    tolerance: str = ""
    nodes: int | None = None

    def document(self) -> Document:
        return asdict(self)


FIELD: TableView[FieldRow] = TableView(
    "field",
    [
        Column("FILE", lambda row, _: row.file, keep_whole=True),
        Column("FIELD", lambda row, _: row.field, keep_whole=True),
        Column("KIND", lambda row, _: row.kind),
        Column("SOURCE", lambda row, _: row.source),
        Column("SPELLING", lambda row, _: row.spelling),
        Column("MISSING", lambda row, _: row.missing),
        Column("TOLERANCE", lambda row, _: row.tolerance),
        Column("NODES", lambda row, _: row.nodes, wide=True),
    ],
    lambda row: f"{row.file}/{row.field}",
)


def list_fields(schema: Schema) -> list[FieldRow]:
    """Return a row for each file's key and for each field."""
    return [row for file in schema.files for row in _rows(file, schema.definition.rule_for(file.path))]


def _rows(file: FileSchema, rule: FileRule) -> Iterator[FieldRow]:
    if file.whole:
        yield FieldRow(file.path, "", "voted as a whole", "")
        return
    if not file.document:
        source = file.key_source if file.key else "inferred"
        yield from (FieldRow(file.path, name, "key", source) for name in file.key or ["(position)"])
    for pointer, names in file.lists.items():
        is_declared = pointer in rule.fields and rule.fields[pointer].key
        source = "declared" if is_declared else "inferred"
        yield FieldRow(file.path, f"{pointer}/*", f"key: {', '.join(names)}", source)
    for field in file.fields:
        yield FieldRow(
            file.path,
            field.name,
            f"measured {field.kind}" if field.measured else field.kind,
            field.source,
            ", ".join(_spelling(field)),
            "all are values" if field.declared.missing_is_value else ", ".join(field.missing),
            " or ".join(_tolerance(field)),
            field.nodes,
        )


def _spelling(field: FieldSchema) -> Iterator[str]:
    """Yield how the values are spelled where that is not as usual."""
    if field.unit:
        yield field.unit
    if "," in field.decimal:
        yield "decimal comma"
    if field.thousands:
        marks = (repr(mark) if mark.strip() else "space" for mark in field.thousands)
        yield f"thousands {' and '.join(marks)}"
    if field.order:
        yield _ORDERS.get(field.order, field.order)
    if field.zoned:
        yield "with zones"
    if field.declared.fold:
        yield f"whatever the {', '.join(field.declared.fold)}"


def _tolerance(field: FieldSchema) -> Iterator[str]:
    """Yield how far apart values may be and agree, as declared, or with where it comes from."""
    declared = field.declared
    if declared.tolerance is not None:
        in_seconds = "duration" if field.kind == "date" else field.kind
        yield limit_text(in_seconds, declared.tolerance)
    elif field.tolerance:
        yield f"{limit_text(field.kind, field.tolerance)} ({field.noise})"
    if declared.error is not None:
        yield f"{100 * declared.error:g} %"
    elif field.error:
        yield f"{100 * field.error:.3g} % ({field.noise})"


def unmatched_words(pattern: str) -> str:
    """Say that a path in a definition has no effect."""
    return f"the definition has rules for {pattern!r}, which apply to no file"


def doubts(schema: Schema) -> Iterator[str]:
    """Yield what may be inferred wrongly, and which nodes' versions are not read."""
    yield from map(unmatched_words, schema.unmatched)
    for file in schema.files:
        if file.whole:
            yield f"{file.path} is voted as a whole: {file.whole}"
        if file.unsure:
            yield f"{file.path}: {file.unsure}"
        for field in file.fields:
            if field.unsure:
                yield f"{file.path}: {field.name} is compared as {field.kind}: {field.unsure}"
        for node, why in file.abstained.items():
            yield f"{file.path}: the version of {node} is not read: {why}"
