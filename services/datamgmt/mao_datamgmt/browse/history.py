"""The history of a value of a dataset, as JSON lines. Blocking."""

from __future__ import annotations

from collections.abc import Iterator

from mao_datamgmt.context import Context
from mao_git import Clone
from mao_shared.models.dataset import ValueVersion
from mao_vote import HistoryQuery, open_history


def value_history(context: Context, name: str, branch: str | None, query: HistoryQuery) -> Iterator[bytes]:
    """Find a value on a branch (default: this node's); return its versions as JSON lines, newest first.

    An empty line says that the search goes on. Raises NotFound and InvalidInput, see `open_history`.
    """
    clone = Clone.open(context.data.clone(name))
    return _lines(open_history(clone, clone.resolve(branch or context.node), query))


def _lines(batches: Iterator[list[ValueVersion]]) -> Iterator[bytes]:
    for batch in batches:
        lines = [f"{version.model_dump_json(exclude_none=True)}\n" for version in batch]
        yield "".join(lines or ["\n"]).encode()
