"""Lookup of similar names, abbreviated run ids and runs of other nodes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from typing import TYPE_CHECKING, Any

from mao_shared.errors import MaoError, NotFound
from mao_shared.states import RunPhase

from .exits import CommandError, ExitCode
from .layout import ELLIPSIS, matches_cut
from .text import close_names

if TYPE_CHECKING:
    from mao_shared.clients.gateway import MaoClient
    from mao_shared.clients.gateway_http import Resource
    from mao_shared.models import Run

RECENT = 1000  # records to search for an abbreviated run id or a similar name
_FULL_ID = re.compile(r"\d{8}T\d{6}Z-.+-[0-9a-f]{8}")
_FULL_ID_LENGTH = len("20260131T120000Z-x-01234567")


Names = Callable[[], Iterable[str]]


@contextmanager
def did_you_mean(*typed: tuple[str, Names | Resource[Any]]) -> Iterator[None]:
    """Add similar names to a NotFound raised in the block. `typed`: a name, and the list it belongs to."""
    try:
        yield
    except NotFound as error:
        hints = [hint for name, names in typed if (hint := _hint(name, names))]
        if hints:
            error.next = " ".join(hints)
        raise


def _hint(name: str, listing: Names | Resource[Any]) -> str:
    try:
        if callable(listing):
            known = list(listing())
        else:
            key = listing.model.key_field or "name"
            known = [str(getattr(record, key)) for record in islice(listing.list(), RECENT)]
    except MaoError:  # report the original error rather than a failed hint
        return ""
    near = [] if name in known else close_names(name, known)
    return f"Did you mean {' or '.join(near)}?" if near else ""


def uncut(typed: str, names: Names) -> str:
    """Return the name that a table shows cut like this, if one is; otherwise what was typed."""
    if ELLIPSIS not in typed:
        return typed
    matches = [name for name in names() if matches_cut(typed, name)]
    return matches[0] if len(matches) == 1 else typed


def find_run(client: MaoClient, typed: str) -> Run:
    """Return the run with this id, or the only recent one whose id begins or ends with it."""
    if len(typed) >= _FULL_ID_LENGTH:
        try:
            return client.runs.get(typed)
        except NotFound:
            pass  # it may be a long part of an id
    ids = [run.id for run in islice(client.runs.list(), RECENT)]
    return client.runs.get(matching_id(typed, ids))


def newest_run(client: MaoClient, pipeline: str | None) -> Run:
    """Return the newest run, of a pipeline if it is given, that was not missed. Raises NotFound."""
    with did_you_mean(*([(pipeline, client.pipelines)] if pipeline else [])):
        recent = islice(client.runs.list(pipeline=pipeline), RECENT)
        found = next((run for run in recent if run.phase is not RunPhase.MISSED), None)
        if found is None:
            of = f" of the pipeline {pipeline!r}" if pipeline else ""
            next_step = f"Start one: maoctl pipeline run {pipeline or 'NAME'}"
            raise NotFound(f"There is no run{of} yet.", next=next_step)
        return found


@contextmanager
def other_nodes_run(client: MaoClient, typed: str) -> Iterator[None]:
    """Name the node of a run that is not found here, instead of suggesting a similar id."""
    try:
        yield
    except (NotFound, CommandError) as error:
        if isinstance(error, CommandError) and error.code is not ExitCode.NOT_FOUND:
            raise
        matches: list[tuple[str, str]] = []
        with suppress(MaoError):  # report the original error rather than a failed hint
            matches = [
                (node.node, found.id)
                for node in client.nodes.runs()
                for found in node.runs
                if found.id.startswith(typed) or found.id.endswith(typed)
            ]
        if len(matches) == 1:
            [(node_name, run)] = matches
            error.next = f"It is a run of {node_name}: maoctl run logs {run} --node {node_name}"
        elif _FULL_ID.fullmatch(typed):
            error.next = f"If it is another node's run: maoctl run logs {typed} --node NODE"
        raise


def matching_id(typed: str, ids: list[str]) -> str:
    """Return the only id that begins or ends with what was typed, or that a table shows cut like this.

    Raises CommandError for none or several.
    """
    matches = [typed] if typed in ids else [i for i in ids if _is_part(typed, i)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        some = ", ".join(matches[:5]) + (", …" if len(matches) > 5 else "")
        raise CommandError(
            ExitCode.USAGE, f"{typed!r} matches {len(matches)} runs: {some}", "Type more of the id."
        )
    near = close_names(typed, ids)
    hint = f"Did you mean {near[0]}?" if near else "See `maoctl run list`."
    raise CommandError(ExitCode.NOT_FOUND, f"There is no run {typed!r}.", hint)


def _is_part(typed: str, run_id: str) -> bool:
    return run_id.startswith(typed) or run_id.endswith(typed) or matches_cut(typed, run_id)
