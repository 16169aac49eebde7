"""JSON documents that are no list of records: their leaves as a table, and back."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

from mao_shared.json_text import parse_json

from .load import leaf_rows

if TYPE_CHECKING:
    from polars import DataFrame

PATH, VALUE, VOLATILE = "path", "value", "volatile"
Container = Literal["list", "dict"]


def load_document(document: Any, ignore: Collection[str], volatile: Collection[str]) -> DataFrame:
    """A row a leaf: its JSON pointer as `path`, its JSON text as `value`, or as `volatile` where it is that.

    `ignore` and `volatile` name pointers, or the last step of pointers. Raises NotRecords.
    """
    import polars

    leaves = [(row["path"], row["value"]) for row in leaf_rows(document)]
    kept = [(path, text, _named(path, volatile)) for path, text in leaves if not _named(path, ignore)]
    return polars.DataFrame(
        {
            PATH: [path for path, _, _ in kept],
            VALUE: [None if changes else text for _, text, changes in kept],
            VOLATILE: [text if changes else None for _, text, changes in kept],
        },
        schema=dict.fromkeys((PATH, VALUE, VOLATILE), polars.String),
    )


def _named(path: str, names: Collection[str]) -> bool:
    return path in names or path.rpartition("/")[2] in names


def containers(document: Any, path: str = "") -> Iterator[tuple[str, Container]]:
    """Of each object and list that holds something: its JSON pointer, and which of the two it is."""
    if not isinstance(document, dict | list) or not document:
        return
    yield path, "dict" if isinstance(document, dict) else "list"
    below = document.items() if isinstance(document, dict) else enumerate(document)
    for name, inner in below:
        yield from containers(inner, f"{path}/{_escaped(str(name))}")


def build(leaves: Iterable[tuple[str, str]], kinds: Mapping[str, Container]) -> Any:
    """The document with those leaves (pointer, JSON text), its objects and lists as `kinds` says.

    Lists close up over what is missing. No pointer may lie below another. None when there are no leaves.
    """
    root: dict[str, Any] = {}
    for path, text in leaves:
        at, steps = root, ["", *path.split("/")[1:]]
        for step in steps[:-1]:
            at = at.setdefault(step, {})
        at[steps[-1]] = _Leaf(parse_json(text))
    return _folded(root[""], "", kinds) if root else None


class _Leaf:
    def __init__(self, value: Any) -> None:
        self.value = value


def _folded(node: Any, path: str, kinds: Mapping[str, Container]) -> Any:
    if isinstance(node, _Leaf):
        return node.value
    below = {step: _folded(inner, f"{path}/{step}", kinds) for step, inner in node.items()}
    if kinds[path] == "list":
        return [below[step] for step in sorted(filter(_is_place, below), key=int)]
    return {step.replace("~1", "/").replace("~0", "~"): inner for step, inner in below.items()}


def _is_place(step: str) -> bool:
    return step.isascii() and step.isdigit() and len(step) < 20


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


def leaves(table: DataFrame) -> Iterator[tuple[str, str]]:
    """The leaves of a document's table, those that are volatile among them."""
    for path, value, volatile in table.select(PATH, VALUE, VOLATILE).iter_rows():
        yield path, value if volatile is None else volatile
