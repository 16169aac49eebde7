"""From what a person typed to what there is: names that nearly fit, shortened run ids, times."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from itertools import islice
from typing import TYPE_CHECKING, Any

from mao_shared.errors import MaoError, NotFound

from .exits import CommandError, ExitCode

if TYPE_CHECKING:
    from mao_shared.clients.gateway import MaoClient
    from mao_shared.clients.gateway_http import Resource
    from mao_shared.models import Run

RECENT = 1000  # how many records are looked at for a shortened run id or a name that nearly fits
_FULL_ID = re.compile(r"\d{8}T\d{6}Z-.+-[0-9a-f]{8}")
_FULL_ID_LENGTH = len("20260131T120000Z-x-01234567")


def close_names(typed: str, names: Iterable[str]) -> list[str]:
    """Up to three names that are near to what was typed, the nearest first."""
    by_folded = {name.casefold(): name for name in names}
    return [
        by_folded[match] for match in get_close_matches(typed.casefold(), list(by_folded), n=3, cutoff=0.6)
    ]


Names = Callable[[], Iterable[str]]


@contextmanager
def did_you_mean(*typed: tuple[str, Names]) -> Iterator[None]:
    """Adds names that nearly fit to a NotFound. `typed`: a name, and how to list what there is."""
    try:
        yield
    except NotFound as error:
        hints = [hint for name, names in typed if (hint := _hint(name, names))]
        if hints:
            error.next = " ".join(hints)
        raise


def _hint(name: str, names: Names) -> str:
    try:
        known = list(names())
    except MaoError:  # the hint is a courtesy; what failed first is what counts
        return ""
    near = [] if name in known else close_names(name, known)
    return f"Did you mean {' or '.join(near)}?" if near else ""


def names_of(resource: Resource[Any], key: str = "name") -> Names:
    """How to list the names of a kind of record."""
    return lambda: (str(getattr(record, key)) for record in islice(resource.list(), RECENT))


def find_run(client: MaoClient, typed: str) -> Run:
    """The run with this id, or the one recent run whose id begins or ends so."""
    if len(typed) >= _FULL_ID_LENGTH:
        try:
            return client.run(segment(typed))
        except NotFound:
            pass  # it may be the long end or beginning of an id
    ids = [run.id for run in islice(client.runs(), RECENT)]
    return client.run(segment(matching_id(typed, ids)))


@contextmanager
def other_nodes_run(client: MaoClient, typed: str) -> Iterator[None]:
    """Says of a run that is not here whose it is, in place of a run that merely has a similar id."""
    try:
        yield
    except (NotFound, CommandError) as error:
        if isinstance(error, CommandError) and error.code is not ExitCode.NOT_FOUND:
            raise
        found = _run_elsewhere(client, typed)
        if found is not None:
            node, run = found
            error.next = f"It is a run of {node}: maoctl run logs {run} --node {node}"
        elif _FULL_ID.fullmatch(typed):
            error.next = f"If it is another node's run: maoctl run logs {typed} --node NODE"
        raise


def _run_elsewhere(client: MaoClient, typed: str) -> tuple[str, str] | None:
    """Node and id of the one run of another node that this is known to be."""
    try:
        fits = [
            (each.node, run.id)
            for each in client.node_runs()
            for run in each.runs
            if run.id.startswith(typed) or run.id.endswith(typed)
        ]
    except MaoError:  # the hint is a courtesy
        return None
    return fits[0] if len(fits) == 1 else None


def matching_id(typed: str, ids: list[str]) -> str:
    """The one id that is, begins with or ends with what was typed; raises Stop for none or several."""
    fits = [typed] if typed in ids else [i for i in ids if i.startswith(typed) or i.endswith(typed)]
    if len(fits) == 1:
        return fits[0]
    if fits:
        some = ", ".join(fits[:5]) + (", …" if len(fits) > 5 else "")
        raise CommandError(ExitCode.USAGE, f"{typed!r} fits {len(fits)} runs: {some}", "Type more of the id.")
    near = close_names(typed, ids)
    hint = f"Did you mean {near[0]}?" if near else "See `maoctl run list`."
    raise CommandError(ExitCode.NOT_FOUND, f"There is no run {typed!r}.", hint)


def segment(name: str) -> str:
    """A name as one part of a path: whatever was typed cannot lead to another call."""
    from urllib.parse import quote

    quoted = quote(name, safe="")
    return quoted if quoted.strip(".") else quoted.replace(".", "%2E")
