"""Writes tables in the style and with the bytes of observed files: JSON, JSON lines (CSV: write_csv)."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise, product
from typing import TYPE_CHECKING, Any

from mao_shared.json_text import (
    Span,
    element_spans,
    leaf_spans,
    member_spans,
    member_text,
    parse_json,
    render_json,
    replace_spans,
    same_json,
    with_members,
    without_leaves,
)
from mao_vote.records.keys.key import Key
from mao_vote.records.nested.documents import OBJECT, Reader
from mao_vote.records.nested.object_fields import top_field
from mao_vote.records.nested.paths import unescape_step
from mao_vote.records.reading.csv_text import strip_common_line_ends
from mao_vote.records.reading.load import BOM, RecordFormat, escape_step

from .sources import SourceFile, take_over
from .write_csv import csv_manner, write_csv
from .write_nested import encodable, write_field

if TYPE_CHECKING:
    from polars import DataFrame, Series

_SAMPLE = 200  # lines from which the style of spacing is inferred
Dump = Callable[[Any], str]
_MARKER = "\0"  # between the text before a record and the record; not allowed in JSON
_STYLE_BYTES = 10_000  # from which the spacing of a JSON file is inferred


def _record(table: DataFrame, place: int, nested: Reader | None) -> dict[str, Any]:
    cells = {name: text for name, text in table.row(place, named=True).items() if text is not None}
    inside = [name for name in cells if nested is not None and name.startswith("/")]
    record = {name: parse_json(text) for name, text in cells.items() if name not in inside}
    for name in sorted(inside, key=lambda name: name.count("/")):
        around, (*steps, last) = record, map(unescape_step, name.split("/")[1:])
        for step in steps:
            around = around[step]
        around[last] = parse_json(cells[name])
    return record


def _dump_styles(indent: int | str | None) -> Iterator[Dump]:
    for separators, ascii_only, sort in product((None, (",", ":")), (False, True), (True, False)):
        yield partial(
            render_json, indent=indent, separators=separators, ensure_ascii=ascii_only, sort_keys=sort
        )


def _with_cells(
    table: DataFrame, nested: Reader | None, piece: str, place: int, others: Mapping[str, str | None]
) -> str:
    """Return a record's text with the cells in `others` as decided; new fields are added at its end.

    Args:
        nested: reads the fields that are voted by what is inside, None if there are none.
    """
    before, gap, text = piece.rpartition(_MARKER)
    spans = member_spans(text)
    donors = {name: None if other is None else other.rpartition(_MARKER)[2] for name, other in others.items()}
    changes, removed, new = [], [], []
    for name in dict.fromkeys(name if nested is None else top_field(name) for name in others):
        donor = donors.get(name)
        cell = table[name][place] if name in table.columns else None
        if nested is not None and cell == OBJECT:
            cell, donor = _nested_cell(table, nested, text, place, donors, name), None
        if cell is None:
            removed.append(name)
        elif name not in spans:
            member = f"{render_json(name)}: {cell}" if donor is None else member_text(donor, name)
            new.append(member)
        else:
            begin, end = (0, 0) if donor is None else member_spans(donor)[name]
            changes.append((spans[name], encodable(cell if donor is None else donor[begin:end])))
    changed = replace_spans(text, changes)
    return before + gap + (with_members(changed, removed, new) if removed or new else changed)


def _nested_cell(
    table: DataFrame,
    nested: Reader,
    model: str,
    place: int,
    donors: Mapping[str, str | None],
    field: str,
) -> str:
    """Return the text of a field that was decided by what is inside, from the model's and the donors'."""
    at = f"/{escape_step(field)}"
    cells = {at: OBJECT}
    for name in table.columns:
        if name.startswith(f"{at}/") and (text := table[name][place]) is not None:
            cells[name] = text
    records = [
        model,
        *(text for name, text in donors.items() if text is not None and top_field(name) == field),
    ]
    spans = ((record, member_spans(record).get(field)) for record in dict.fromkeys(records))
    texts = [record[slice(*span)] for record, span in spans if span is not None]
    return write_field(cells, texts, nested, at)


def _json_texts(
    table: DataFrame,
    sources: Sequence[SourceFile],
    key: Key,
    raw_texts: Callable[[SourceFile], list[str]],
    dump: Callable[[], Dump],
    nested: Reader | None,
) -> list[str]:
    import polars

    def text_series(source: SourceFile) -> Series:
        return polars.Series(raw_texts(source), dtype=polars.String)

    texts = take_over(table, sources, key, text_series, partial(_with_cells, table, nested)).to_list()
    if None not in texts:
        return texts
    write = dump()
    return [
        encodable(write(_record(table, place, nested))) if text is None else text
        for place, text in enumerate(texts)
    ]


def write_json_lines(
    table: DataFrame, sources: Sequence[SourceFile], key: Key, nested: Reader | None = None
) -> bytes:
    """Write one record per line; the text between the model's lines is kept."""
    model = sources[0].content
    pieces, tail = _line_pieces(model)

    def raw_texts(source: SourceFile) -> list[str]:
        return strip_common_line_ends(_line_pieces(source.content)[0])

    def dump() -> Dump:
        sample = [piece.rpartition(_MARKER)[2] for piece in pieces[:_SAMPLE]]
        parsed = [parse_json(line) for line in sample]

        def matches(dump: Dump) -> int:
            return sum(dump(value) == line.strip() for value, line in zip(parsed, sample, strict=True))

        return max(_dump_styles(None), key=matches)

    texts = [text.replace(_MARKER, "") for text in _json_texts(table, sources, key, raw_texts, dump, nested)]
    line_end = "\r\n" if pieces and pieces[0].endswith("\r\n") else "\n"
    lines = [text if text.endswith("\n") else text + line_end for text in texts]
    if lines and pieces and not pieces[-1].endswith("\n"):
        lines[-1] = lines[-1].removesuffix("\n").removesuffix("\r")
    mark = BOM if model.startswith(BOM) else b""
    return mark + ("".join(lines) + tail).encode()


def _line_pieces(content: bytes) -> tuple[list[str], str]:
    """Split a file into records, with the blank lines before each and its line end, and the tail."""
    pieces, pending = [], ""
    for line in content.decode("utf-8-sig").split("\n"):
        pending += line + "\n"
        if line.strip():
            begin = len(pending) - len(line.lstrip()) - 1
            pieces.append(pending[:begin] + _MARKER + pending[begin:])
            pending = ""
    if pending or not pieces:
        return pieces, pending.removesuffix("\n")
    return [*pieces[:-1], pieces[-1].removesuffix("\n")], ""


def write_json_list(
    table: DataFrame, sources: Sequence[SourceFile], key: Key, nested: Reader | None = None
) -> bytes:
    """Write a list of objects with the spacing of the model."""
    text = sources[0].content.decode("utf-8-sig")
    spans = element_spans(text) if text.strip() else []
    if not spans:
        return _write_whole(
            [_record(table, place, nested) for place in range(table.height)], sources[0].content
        )

    def raw_texts(source: SourceFile) -> list[str]:
        other = source.content.decode("utf-8-sig")
        if not other.strip():
            return []
        spans = element_spans(other)
        before = [other[left[1] : right[0]] for left, right in pairwise(spans)]
        if len(set(before)) < 2:
            return [other[begin:end] for begin, end in spans]
        return [
            gap + _MARKER + other[begin:end] for gap, (begin, end) in zip(["", *before], spans, strict=True)
        ]

    texts = _json_texts(table, sources, key, raw_texts, lambda: _element_dump(text, spans[0][0]), nested)
    first, *more = spans
    default_gap = text[first[1] : more[0][0]] if more else "," + text[text.index("[") + 1 : first[0]]
    parts = [text.rpartition(_MARKER) for text in texts]
    between = [text[: first[0]], *(before or default_gap for before, _, _ in parts[1:])]
    inner = "".join(before + record for before, (_, _, record) in zip(between, parts, strict=False))
    mark = BOM if sources[0].content.startswith(BOM) else b""
    return mark + (inner + text[spans[-1][1] :] if texts else "[]").encode()


def _element_dump(text: str, begin: int) -> Dump:
    """Infer the style of a list's elements from the first one and its indentation."""
    element, end = text[begin:], element_spans(text)[0][1]
    element = text[begin:end]
    margin = re.search(r"\n([ \t]*)$", text[:begin])
    second = element.partition("\n")[2]
    inner_indent = second[: len(second) - len(second.lstrip())]
    outer = margin[1] if margin else ""
    indent = inner_indent.removeprefix(outer) or None if "\n" in element else None

    def indented(dump: Dump, value: Any) -> str:
        return dump(value).replace("\n", "\n" + outer)

    value = parse_json(element)
    found = next((dump for dump in _dump_styles(indent) if indented(dump, value) == element), None)
    return partial(indented, found or next(_dump_styles(indent)))


def write_document(leaves: Mapping[str, str], rebuilt: Callable[[], Any], contents: Sequence[bytes]) -> bytes:
    """Write a JSON document with the given leaves (pointer → JSON text).

    The leaves are replaced in the first version that has all of them.

    Args:
        rebuilt: builds the document, called if no version has all leaves.
        contents: all versions, the model first.
    """
    texts = [content.decode("utf-8-sig") for content in contents]
    found = ((place, leaf_spans(text)) for place, text in enumerate(texts) if text.strip())
    base, spans = next(((place, at) for place, at in found if leaves.keys() <= at.keys()), (None, {}))
    if base is None or not leaves:
        return _write_whole(rebuilt(), contents[0])
    model, others = texts[base], [text for place, text in enumerate(texts) if place != base]
    changes = []
    other_spans: list[dict[str, Span]] | None = None
    for pointer, decided in leaves.items():
        begin, end = spans[pointer]
        if same_json(model[begin:end], decided):
            continue
        if other_spans is None:
            other_spans = [leaf_spans(other) if other.strip() else {} for other in others]
        raws = (
            other[slice(*spans_there[pointer])]
            for other, spans_there in zip(others, other_spans, strict=True)
            if pointer in spans_there
        )
        raw = next((raw for raw in raws if same_json(raw, decided)), None)
        changes.append(((begin, end), encodable(decided if raw is None else raw)))
    mark = BOM if contents[base].startswith(BOM) else b""
    changed = replace_spans(model, changes)
    return mark + (changed if len(leaves) == len(spans) else without_leaves(changed, leaves)).encode()


def _write_whole(document: Any, model: bytes) -> bytes:
    """Write a JSON document with the model's indentation and end, or two spaces if that is irregular."""
    text = model.decode("utf-8-sig")
    body = text.rstrip()
    previous = parse_json(body) if body else []
    second = body.partition("\n")[2]
    indent = second[: len(second) - len(second.lstrip())] or None
    dump = next(
        (dump for dump in _dump_styles(indent) if dump(previous) == body), partial(render_json, indent=2)
    )
    mark = BOM if model.startswith(BOM) else b""
    return mark + (encodable(dump(document)) + (text[len(body) :] if body else "\n")).encode()


def write_like(
    table: DataFrame,
    sources: Sequence[SourceFile],
    file_format: RecordFormat,
    key: Key,
    nested: Reader | None = None,
) -> bytes:
    """Write records in the style of the first source, the model, reusing the bytes of all sources.

    Args:
        nested: reads the fields that are voted by what is inside (object_fields.py); None if there are none.
    """
    if file_format.tabular:
        return write_csv(table, sources, file_format, key)
    if file_format is RecordFormat.JSON_LINES:
        return write_json_lines(table, sources, key, nested)
    return write_json_list(table, sources, key, nested)


def text_style(content: bytes, file_format: RecordFormat, table: DataFrame) -> Hashable:
    """Return a value that is equal for files of the same style, judged by their beginnings."""
    if file_format.tabular:
        return csv_manner(content, file_format, table)
    head = content[:_STYLE_BYTES].decode("utf-8", "replace")
    second = head.partition("\n")[2]
    indent = second[: len(second) - len(second.lstrip())]
    return file_format, indent, '": ' in head, content[-1:].isspace()
