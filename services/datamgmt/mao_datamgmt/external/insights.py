"""Insights: results that tools publish in a file `insights.json` at the top of their data. Blocking.

Their key is `<tool>/<branch>` or `<dataset>/<branch>`; the default branch is this node's. A leading
`insight/`, as in the original system, is ignored.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress

from mao_datamgmt.context import Context
from mao_git import Clone
from mao_shared.errors import Conflict, InvalidInput, MaoError, NotFound
from mao_shared.json_text import RawJson, check_json
from mao_shared.models import is_name
from mao_shared.models.external import Insight

FILE = "insights.json"
MAX_BYTES = 1 << 20  # bytes
MAX_ITEMS = 1000  # in one answer
MAX_TOTAL_BYTES = 1 << 20  # bytes of values in one answer
_PREFIXES = frozenset({"insight", "insights"})
ToolDataset = tuple[str, str]
"""A tool, and a dataset that it writes to on this node."""


def parse_key(key: str) -> tuple[str | None, str | None]:
    """Return the tool or dataset and the branch that a key names; raise InvalidInput."""
    parts = [part for part in key.split("/") if part]
    if parts and parts[0] in _PREFIXES:
        parts = parts[1:]
    if len(parts) > 2 or not all(is_name(part) for part in parts):
        raise InvalidInput(
            f"{key!r} is not a key of insights.",
            code="insights-key-invalid",
            next="Give the tool's name, or tool/node. List the insights: maoctl inspect",
        )
    return (parts[0] if parts else None), (parts[1] if len(parts) == 2 else None)


def key_missing() -> InvalidInput:
    """Return the error for a query that names neither a tool nor a dataset."""
    return InvalidInput(
        "No key is given.",
        code="insights-key-missing",
        next="Give a tool's name. List them: maoctl inspect",
    )


def select_sources(
    name: str | None, sources: Iterable[ToolDataset], dataset: str | None
) -> list[ToolDataset]:
    """Return the (tool, dataset) pairs to search. An unknown tool is taken as a dataset. Pure."""
    candidates = sorted(set(sources))
    if name is not None:
        candidates = [source for source in candidates if source[0] == name] or [(name, name)]
    return candidates if dataset is None else [source for source in candidates if source[1] == dataset]


def read(context: Context, sources: list[ToolDataset], branch: str | None, key: str) -> Insight:
    """Return the insight for a key. Raises NotFound, Conflict (`insights-ambiguous`) and InvalidInput."""
    found = []
    for tool, dataset in sources:
        with suppress(NotFound):
            clone = Clone.open(context.data.clone(dataset))
            found.append(_read_branch(clone, tool, dataset, branch or context.node, MAX_BYTES))
    if not found:
        raise NotFound(
            f"There are no insights of {key!r}: there is no {FILE} at the top of its data.",
            code="insights-not-found",
            next=f"List the insights: maoctl inspect. A tool writes its own to /usr/src/app/data/{FILE}.",
        )
    if len(found) > 1:
        names = " and ".join(insight.dataset for insight in found)
        raise Conflict(
            f"{key!r} has insights in {names}.",
            code="insights-ambiguous",
            next=f"Name one: maoctl read {key} --dataset {found[0].dataset}",
        )
    return found[0]


def _read_branch(clone: Clone, tool: str, dataset: str, branch: str, max_size: int) -> Insight:
    """Read the insight of a branch. Raises NotFound.

    The value of a file larger than `max_size` is omitted; one above MAX_BYTES is refused.
    """
    commit = clone.resolve(branch)
    stream = clone.open_file(commit, FILE)
    if max_size == MAX_BYTES and stream.size > max_size:
        raise InvalidInput(
            f"{FILE} of {tool} has {stream.size} bytes, the limit is {MAX_BYTES}.",
            code="insights-too-large",
            next=f"Download it: maoctl dataset download {dataset} {FILE} --ref {branch}",
        )
    found = Insight(key=f"{tool}/{branch}", dataset=dataset, branch=branch, commit=commit, size=stream.size)
    if stream.size > max_size:
        return found
    data = b"".join(stream.pieces)
    try:
        text = data.decode(json.detect_encoding(data))
        check_json(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(
            f"{FILE} of {tool} is not JSON: {error}.",
            code="insights-invalid",
            next=f"Inspect it: maoctl dataset cat {dataset} {FILE} --ref {branch}",
        ) from error
    return found.model_copy(update={"value": RawJson(text.strip(" \t\r\n"))})


def as_json(insight: Insight) -> str:
    """Return the insight as JSON, with the value as the file spells it."""
    texts = {name: json.dumps(value) for name, value in insight.model_dump(mode="json").items()}
    if isinstance(insight.value, RawJson):
        texts["value"] = insight.value
    return "{" + ",".join(f'"{name}":{text}' for name, text in texts.items()) + "}"


def inspect(context: Context, sources: list[ToolDataset], branch: str | None) -> list[Insight]:
    """Return all insights, sorted by key, with values up to the total size limit."""
    found: list[Insight] = []
    max_size = MAX_TOTAL_BYTES
    for tool, dataset in sources:
        try:
            clone = Clone.open(context.data.clone(dataset))
        except NotFound:
            continue
        local, remote = clone.list_branches(), clone.list_branches(remote=True)
        for name in sorted(local.keys() | remote.keys()) if branch is None else [branch]:
            try:
                insight = _read_branch(clone, tool, dataset, name, min(max_size, MAX_BYTES - 1))
            except NotFound:
                continue
            except MaoError as error:  # an unreadable one must not hide the others
                insight = Insight(key=f"{tool}/{name}", dataset=dataset, branch=name, problem=error.detail)
            if len(found) == MAX_ITEMS:
                return found
            max_size -= insight.size if insight.value is not None else 0
            found.append(insight)
    return found
