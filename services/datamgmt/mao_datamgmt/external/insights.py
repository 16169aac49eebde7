"""Insights: what tools tell the outside in a file `insights.json` at the top of their data. Blocking.

Their key is `<tool>/<branch>`, or `<dataset>/<branch>`; without a branch it is this node's. A leading
`insight/`, as the original system had it, means nothing.
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
            next="Give the tool's name, or tool/node. What there is: maoctl inspect",
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
    """Return the (tool, dataset) pairs to search. A name that no tool has is taken as a dataset's. Pure."""
    known = sorted(set(sources))
    if name is not None:
        known = [source for source in known if source[0] == name] or [(name, name)]
    return known if dataset is None else [source for source in known if source[1] == dataset]


def read(context: Context, sources: list[ToolDataset], branch: str | None, key: str) -> Insight:
    """Return the insight of a key. Raises NotFound, Conflict (`insights-ambiguous`) and InvalidInput."""
    found = []
    for tool, dataset in sources:
        with suppress(NotFound):
            clone = Clone.open(context.data.clone(dataset))
            found.append(_at(clone, tool, dataset, branch or context.node, MAX_BYTES))
    if not found:
        raise NotFound(
            f"There are no insights of {key!r}: no {FILE} is at the top of its data.",
            code="insights-not-found",
            next=f"See what there is: maoctl inspect. A tool leaves it as /usr/src/app/data/{FILE}.",
        )
    if len(found) > 1:
        names = " and ".join(insight.dataset for insight in found)
        raise Conflict(
            f"{key!r} left insights in {names}.",
            code="insights-ambiguous",
            next=f"Name one: maoctl read {key} --dataset {found[0].dataset}",
        )
    return found[0]


def _at(clone: Clone, tool: str, dataset: str, branch: str, room: int) -> Insight:
    """Read the insight of a branch. Raises NotFound.

    A file larger than `room` comes without its value; one above MAX_BYTES is refused.
    """
    commit = clone.resolve(branch)
    opened = clone.open_file(commit, FILE)
    if room == MAX_BYTES and opened.size > room:
        raise InvalidInput(
            f"{FILE} of {tool} has {opened.size} bytes, the limit is {MAX_BYTES}.",
            code="insights-too-large",
            next=f"Download it: maoctl dataset download {dataset} {FILE} --ref {branch}",
        )
    found = Insight(key=f"{tool}/{branch}", dataset=dataset, branch=branch, commit=commit, size=opened.size)
    if opened.size > room:
        return found
    data = b"".join(opened.pieces)
    try:
        text = data.decode(json.detect_encoding(data))
        check_json(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(
            f"{FILE} of {tool} is not JSON: {error}.",
            code="insights-invalid",
            next=f"Look at it: maoctl dataset cat {dataset} {FILE} --ref {branch}",
        ) from error
    return found.model_copy(update={"value": RawJson(text.strip(" \t\r\n"))})


def as_json(insight: Insight) -> str:
    """Return the insight as JSON; the value keeps the spelling of its file."""
    texts = {name: json.dumps(value) for name, value in insight.model_dump(mode="json").items()}
    if isinstance(insight.value, RawJson):
        texts["value"] = insight.value
    return "{" + ",".join(f'"{name}":{text}' for name, text in texts.items()) + "}"


def inspect(context: Context, sources: list[ToolDataset], branch: str | None) -> list[Insight]:
    """Return all insights, sorted by key; their values until the size limit is reached."""
    found: list[Insight] = []
    room = MAX_TOTAL_BYTES
    for tool, dataset in sources:
        try:
            clone = Clone.open(context.data.clone(dataset))
        except NotFound:
            continue
        ours, theirs = clone.list_branches(), clone.list_branches(remote=True)
        for name in sorted(ours.keys() | theirs.keys()) if branch is None else [branch]:
            try:
                insight = _at(clone, tool, dataset, name, min(room, MAX_BYTES - 1))
            except NotFound:
                continue
            except MaoError as error:  # one that cannot be read does not hide the others
                insight = Insight(key=f"{tool}/{name}", dataset=dataset, branch=name, problem=error.detail)
            if len(found) == MAX_ITEMS:
                return found
            room -= insight.size if insight.value is not None else 0
            found.append(insight)
    return found
