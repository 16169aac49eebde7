"""Turns JSON documents into tables of leaves and back."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

from mao_shared.json_text import parse_json, render_json
from mao_vote.records import NotRecords

if TYPE_CHECKING:
    from polars import DataFrame

MAX_LEAVES = 500_000
MAX_POINTER_CHARACTERS = 64 << 20  # of all JSON pointers together, each of which repeats the names above it
MAX_DEPTH = 100  # of JSON; the interpreter's own limit varies, and all nodes must have the same
_TOO_DEEP = "its JSON is nested too deeply"
PATH, VALUE, VOLATILE = "path", "value", "volatile"
Container = Literal["list", "dict"]


def leaf_rows(document: Any) -> list[dict[str, str]]:
    """Return the `path` (JSON pointer) and `value` (JSON text) of each leaf of a document.

    Raises NotRecords.
    """
    rows: list[dict[str, str]] = []
    name_length = 0
    for path, value in _leaves("", document):
        name_length += len(path)
        if not path.isascii() and _has_lone_surrogate(path):
            raise NotRecords("the name of a field has half a letter")
        if len(rows) == MAX_LEAVES or name_length > MAX_POINTER_CHARACTERS:
            raise NotRecords(f"it has more than {MAX_LEAVES} values outside of records, or too long names")
        rows.append({"path": path, "value": _text(value)})
    return rows


def _leaves(path: str, value: Any, depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Yield the leaves of a document, each with its JSON pointer (RFC 6901)."""
    if depth > MAX_DEPTH:
        raise NotRecords(_TOO_DEEP)
    if not isinstance(value, dict | list) or not value:
        yield path, value
        return
    children = value.items() if isinstance(value, dict) else enumerate(value)
    for name, inner in children:
        yield from _leaves(f"{path}/{_escape_step(str(name))}", inner, depth + 1)


def _text(value: Any) -> str:
    """Return a value as JSON text with sorted names; numbers keep their spelling."""
    text = render_json(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    if text.count("[") + text.count("{") > MAX_DEPTH:
        level = [value]
        for _ in range(MAX_DEPTH):
            inner = (item for item in level if isinstance(item, dict | list))
            level = [
                children for item in inner for children in (item.values() if isinstance(item, dict) else item)
            ]
        if any(isinstance(item, dict | list) for item in level):
            raise NotRecords(_TOO_DEEP)
    if not text.isascii() and _has_lone_surrogate(text):
        return render_json(value, sort_keys=True, separators=(",", ":"))
    return text


def _has_lone_surrogate(text: str) -> bool:
    """True if a text has an unpaired UTF-16 surrogate, which no table can hold."""
    return any("\ud800" <= letter <= "\udfff" for letter in text)


def load_document(document: Any, ignore: Collection[str], volatile: Collection[str]) -> DataFrame:
    """Return one row per leaf: its JSON pointer as `path`, its JSON text as `value` or `volatile`.

    `ignore` and `volatile` name JSON pointers, or their last steps. Raises NotRecords.
    """
    import polars

    leaves = [(row["path"], row["value"]) for row in leaf_rows(document)]
    remaining = [
        (path, text, _matches_name(path, volatile))
        for path, text in leaves
        if not _matches_name(path, ignore)
    ]
    return polars.DataFrame(
        {
            PATH: [path for path, _, _ in remaining],
            VALUE: [None if changes else text for _, text, changes in remaining],
            VOLATILE: [text if changes else None for _, text, changes in remaining],
        },
        schema=dict.fromkeys((PATH, VALUE, VOLATILE), polars.String),
    )


def _matches_name(path: str, names: Collection[str]) -> bool:
    return path in names or path.rpartition("/")[2] in names


def containers(document: Any, path: str = "") -> Iterator[tuple[str, Container]]:
    """Yield the JSON pointer and kind of each object and list that is not empty."""
    if not isinstance(document, dict | list) or not document:
        return
    yield path, "dict" if isinstance(document, dict) else "list"
    children = document.items() if isinstance(document, dict) else enumerate(document)
    for name, inner in children:
        yield from containers(inner, f"{path}/{_escape_step(str(name))}")


def build_document(leaves: Iterable[tuple[str, str]], kinds: Mapping[str, Container]) -> Any:
    """Build a document from leaves (pointer, JSON text); None if there are none.

    `kinds` maps pointers to list or object. Gaps in lists are closed. No pointer may be below another.
    """
    root: dict[str, Any] = {}
    for path, text in leaves:
        node, steps = root, ["", *path.split("/")[1:]]
        for step in steps[:-1]:
            node = node.setdefault(step, {})
        node[steps[-1]] = _Leaf(parse_json(text))
    return _build_node(root[""], "", kinds) if root else None


class _Leaf:
    def __init__(self, value: Any) -> None:
        self.value = value


def _build_node(node: Any, path: str, kinds: Mapping[str, Container]) -> Any:
    if isinstance(node, _Leaf):
        return node.value
    children = {step: _build_node(inner, f"{path}/{step}", kinds) for step, inner in node.items()}
    if kinds[path] == "list":
        places = (step for step in children if step.isascii() and step.isdigit() and len(step) < 20)
        return [children[step] for step in sorted(places, key=int)]
    return {step.replace("~1", "/").replace("~0", "~"): inner for step, inner in children.items()}


def _escape_step(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


def iter_leaves(table: DataFrame) -> Iterator[tuple[str, str]]:
    """Yield the pointer and JSON text of each leaf in a document's table, including volatile ones."""
    for path, value, volatile in table.select(PATH, VALUE, VOLATILE).iter_rows():
        yield path, value if volatile is None else volatile
