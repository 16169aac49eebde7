"""Turns two versions of a document into tables in which what is the same thing has the same path.

Entries of lists have the paths that the vote on both versions gives them. What it would decide as a whole,
such as lists without identity, is compared by what is inside as well: by name, and by place in lists.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from mao_shared.models.round import FileRule
from mao_vote.records.reading.load import cell_text, check_document, is_record_list, load_json_document

from .documents import PATH, VALUE, Place, Reader, find_places
from .paths import member_steps
from .planner import plan_layout

if TYPE_CHECKING:
    from polars import DataFrame

_ABSENT = object()


def load_documents(before: bytes, after: bytes, rule: FileRule) -> tuple[DataFrame, DataFrame] | None:
    """Return the values of two versions of a document by path; None if both are lists of records.

    Empty contents have no values. Raises NotRecords.

    Args:
        rule: declares what identifies the entries of lists.
    """
    documents = [load_json_document(content) for content in (before, after)]
    if all(map(is_record_list, documents)):
        return None
    existing = [
        document for document, content in zip(documents, (before, after), strict=True) if content.strip()
    ]
    for document in existing:
        check_document(document)
    reader = Reader(FileRule(fields=rule.fields, fold=rule.fold))
    layout = plan_layout(existing, [1] * len(existing), reader)
    places = [
        {place.path: place for place in find_places(document, layout, reader)} if content.strip() else {}
        for document, content in zip(documents, (before, after), strict=True)
    ]
    return _table(places[0], places[1]), _table(places[1], places[0])


def _table(places: dict[str, Place], others: dict[str, Place]) -> DataFrame:
    import polars

    rows: list[tuple[str, str]] = []
    for path, place in places.items():
        if place.kind in ("object", "list") and not place.is_blank:
            if not place.value:
                rows.append((path, cell_text(place.value)))
            continue
        other = others[path].value if path in others else _ABSENT
        rows += ((inner, cell_text(value)) for inner, value in _split(path, place.value, other))
    return polars.DataFrame(rows, schema=dict.fromkeys((PATH, VALUE), polars.String), orient="row")


def _split(path: str, value: Any, other: Any) -> Iterator[tuple[str, Any]]:
    """Yield the path and value of each leaf; of what the other version has another kind of, the whole."""
    is_alike = other is _ABSENT or (type(other) is type(value) and other)
    if not isinstance(value, dict | list) or not value or not is_alike:
        yield path, value
    elif isinstance(value, dict):
        others = other if isinstance(other, dict) else {}
        for name, inner in value.items():
            yield from _split(f"{path}/{member_steps(name)[0]}", inner, others.get(name, _ABSENT))
    else:
        others = dict(enumerate(other)) if isinstance(other, list) else {}
        for number, inner in enumerate(value):
            yield from _split(f"{path}/{number}", inner, others.get(number, _ABSENT))
