"""Writes nested JSON as decided, put together from the texts of the versions.

Each object and list is written as the first version that has it writes it: with its spaces, and with the
members and entries that are in the result. Values are copied from the first version that has them as decided.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from mao_shared.json_text import Part, join_parts, parse_json, parse_parts, render_json
from mao_vote.records.nested.documents import OBJECT, Layout, Place, Reader, find_places, iter_leaves
from mao_vote.records.nested.paths import NamedFields
from mao_vote.records.reading.load import BOM, escape_step

if TYPE_CHECKING:
    from polars import DataFrame

_WHOLE = Layout()


class NestedText:
    """A version of a JSON value, with the places of what is inside.

    Args:
        layout: of a document; without it, lists are values.
        at: the path of the value itself, if it is inside of something.
        table: of the document, if it is known.
    """

    def __init__(
        self, text: str, reader: Reader, layout: Layout = _WHOLE, at: str = "", table: DataFrame | None = None
    ) -> None:
        self.text = cut_text(text, reader.ignored, at)
        self._reader, self._layout, self._at, self._table = reader, layout, at, table

    @cached_property
    def places(self) -> dict[str, Place]:
        found = find_places(parse_json(self.text), self._layout, self._reader, self._at)
        return {place.path: place for place in found if place.kind is not None}

    @cached_property
    def leaves(self) -> dict[str, str]:
        """The texts by which values are compared, by path."""
        if self._table is not None:
            return {path: text for path, text in iter_leaves(self._table) if text is not None}
        places = self.places.items()
        return {path: self._reader.text(place) for path, place in places if place.kind == "value"}

    @cached_property
    def _parts(self) -> dict[str, Part]:
        parts: dict[str, Part] = {}

        def visit(pointer: str, part: Part) -> None:
            parts[pointer] = part
            is_list = self.text[part.begin] == "["
            for number, inner in enumerate(part.parts or ()):
                visit(f"{pointer}/{number if is_list else escape_step(inner.name)}", inner)

        visit(self._at, parse_parts(self.text))
        return parts

    def part(self, path: str) -> Part | None:
        place = self.places.get(path)
        return None if place is None else self._parts[place.pointer]

    def raw(self, path: str) -> str:
        part = self._parts[self.places[path].pointer]
        return self.text[part.begin : part.end]

    def can_write(self, path: str, *, full: bool) -> bool:
        """True if an object or list is at a path, and not an empty one if it shall be `full`."""
        place = self.places.get(path)
        if place is None or place.kind == "value" or place.is_blank:
            return False
        return bool(place.value) or not full


def cut_text(text: str, ignored: NamedFields, at: str = "") -> str:
    """Return a JSON text without the members and entries that are named, and what is left empty by it."""
    if not ignored:
        return text
    whole = parse_parts(text)
    return text[: whole.begin] + _cut_part(text, whole, ignored, at, at) + text[whole.end :]


def _cut_part(text: str, part: Part, ignored: NamedFields, pointer: str, pattern: str) -> str:
    raw = text[part.begin : part.end]
    if not part.parts:
        return raw
    is_list = raw.startswith("[")
    pieces: list[tuple[str, Part | None]] = []
    for number, inner in enumerate(part.parts):
        name = str(number) if is_list else inner.name
        below = f"{pointer}/{escape_step(name)}", f"{pattern}/{'*' if is_list else escape_step(name)}"
        if ignored.has(*below, name):
            continue
        cut = _cut_part(text, inner, ignored, *below)
        if not inner.parts or len(cut) > 2:  # what is left empty is `{}` or `[]`
            pieces.append((text[inner.start : inner.begin] + cut, inner))
    is_same = len(pieces) == len(part.parts) and all(
        piece == text[inner.start : inner.end] for (piece, _), inner in zip(pieces, part.parts, strict=True)
    )
    return raw if is_same else join_parts(text, part, pieces)


def write_nested(rows: Iterable[tuple[str, str | None]], sources: Sequence[NestedText], at: str = "") -> str:
    """Return the text of a value that was decided place by place.

    Args:
        rows: path and text of each place in the result, in order; the text is None for objects and lists, or
            `{}` for objects.
        sources: the versions, those first whose spaces are preferred.
        at: the path of the value itself.
    """
    texts: dict[str, str | None] = dict(rows)
    inside: dict[str, list[str]] = {}
    for path in texts:
        if path != at:
            inside.setdefault(path.rpartition("/")[0], []).append(path)
    return _write_place(at, texts, inside, sources)


def write_nested_file(result: DataFrame, sources: Sequence[NestedText], model: bytes) -> bytes:
    """Write a document from its table, with the text of the model before and after it."""
    text = model.decode("utf-8-sig")
    whole = parse_parts(text)
    mark = BOM if model.startswith(BOM) else b""
    return (
        mark + (text[: whole.begin] + write_nested(iter_leaves(result), sources) + text[whole.end :]).encode()
    )


def _write_place(
    path: str, texts: Mapping[str, str | None], inside: Mapping[str, list[str]], sources: Sequence[NestedText]
) -> str:
    decided = texts[path]
    if decided in (None, OBJECT):
        model = next((source for source in sources if source.can_write(path, full=path in inside)), None)
        if model is not None:
            return _write_inside(path, model, texts, inside, sources)
    for source in sources:
        if path in source.leaves and decided in (None, source.leaves[path]):
            return source.raw(path)
    return "null" if decided is None else encodable(decided)


def _write_inside(
    path: str,
    model: NestedText,
    texts: Mapping[str, str | None],
    inside: Mapping[str, list[str]],
    sources: Sequence[NestedText],
) -> str:
    pieces: list[tuple[str, Part | None]] = []
    for below in inside.get(path, ()):
        donor = next((source for source in (model, *sources) if source.part(below) is not None), None)
        part = None if donor is None else donor.part(below)
        if donor is None or part is None:
            continue
        name = donor.text[part.start : part.begin]
        pieces.append((name + _write_place(below, texts, inside, sources), part if donor is model else None))
    around = model.part(path)
    return "" if around is None else join_parts(model.text, around, pieces)


def encodable(text: str) -> str:
    """Escape unpaired surrogates, which UTF-8 cannot represent."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return render_json(parse_json(text))
    return text


def write_field(cells: Mapping[str, str], texts: Sequence[str], reader: Reader, at: str) -> str:
    """Return the text of a record's field that was voted by what is inside.

    Args:
        cells: JSON pointer and text of each place inside, and of the field itself.
        texts: the field in the versions; the members are written in the order of the first one.
        at: the pointer of the field.
    """
    sources = [NestedText(text, reader, at=at) for text in texts]
    rows = {pointer.replace("/[", "/~2"): text for pointer, text in cells.items()}
    order = {
        path: place for place, path in enumerate(dict.fromkeys(p for one in sources for p in one.places))
    }
    ordered = sorted(rows, key=lambda path: order.get(path, len(order)))
    return write_nested(((path, rows[path]) for path in ordered), sources, at)
