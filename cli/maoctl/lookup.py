"""From what a person typed to what there is: names that nearly fit, shortened run ids, times."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import typer

from mao_shared.errors import MaoError, NotFound

from .exits import ExitCode, Stop
from .text import parse_time

if TYPE_CHECKING:
    from .api import Api

RECENT_RUNS = 1000  # how far back a shortened run id is looked for
_FULL_ID_LENGTH = len("20260131T120000Z-x-01234567")


def close_names(typed: str, names: Iterable[str]) -> list[str]:
    """Up to three names that are near to what was typed, the nearest first."""
    by_folded = {name.casefold(): name for name in names}
    return [by_folded[match] for match in get_close_matches(typed.casefold(), list(by_folded), n=3, cutoff=0.6)]


@contextmanager
def did_you_mean(api: Api, typed: Mapping[str, str], key: str = "name") -> Iterator[None]:
    """Adds the names that nearly fit to a NotFound of the block. `typed`: listing's path → name typed."""
    try:
        yield
    except NotFound as error:
        hints = [hint for path, name in typed.items() if (hint := _hint(api, path, name, key))]
        if hints:
            error.next = " ".join(hints)
        raise


def _hint(api: Api, path: str, name: str, key: str) -> str:
    try:
        names = [str(item.get(key, "")) for item in api.items(path, limit=RECENT_RUNS)]
    except MaoError:  # the hint is a courtesy; what failed first is what counts
        return ""
    near = [] if name in names else close_names(name, names)
    return f"Did you mean {' or '.join(near)}?" if near else ""


def find_run(api: Api, typed: str) -> dict[str, Any]:
    """The run with this id, or the one recent run whose id begins or ends so."""
    if len(typed) >= _FULL_ID_LENGTH:
        try:
            return dict(api.get(f"/runs/{segment(typed)}"))
        except NotFound:
            pass
    ids = [str(run["id"]) for run in api.items("/runs", limit=RECENT_RUNS)]
    return dict(api.get(f"/runs/{segment(matching_id(typed, ids))}"))


def matching_id(typed: str, ids: list[str]) -> str:
    """The one id that is, begins with or ends with what was typed; raises Stop for none or several."""
    fits = [typed] if typed in ids else [i for i in ids if i.startswith(typed) or i.endswith(typed)]
    if len(fits) == 1:
        return fits[0]
    if fits:
        some = ", ".join(fits[:5]) + (", …" if len(fits) > 5 else "")
        raise Stop(ExitCode.USAGE, f"{typed!r} fits {len(fits)} runs: {some}", "Type more of the id.")
    near = close_names(typed, ids)
    hint = f"Did you mean {near[0]}?" if near else "See `maoctl run list`."
    raise Stop(ExitCode.NOT_FOUND, f"There is no run {typed!r}.", hint)


def segment(name: str) -> str:
    """A name as one part of a path: whatever was typed cannot lead to another call."""
    from urllib.parse import quote

    quoted = quote(name, safe="")
    return quoted if quoted.strip(".") else quoted.replace(".", "%2E")


def parse_duration(text: str) -> float:
    """Seconds of `90`, `90s`, `30m`, `12h`, `7d`; typer's parser of options."""
    from pydantic import TypeAdapter, ValidationError

    from mao_shared.models.common import Seconds

    try:
        return float(TypeAdapter(Seconds).validate_python(text))
    except ValidationError as error:
        raise typer.BadParameter(f"{text!r} is no length of time; write 90s, 30m, 12h or 7d") from error


def parse_moment(text: str, now: datetime) -> datetime:
    """A time with zone, or how long ago: `2026-01-31T12:00:00Z`, `12h`."""
    try:
        return parse_time(text)
    except ValueError:
        pass
    try:
        return now - timedelta(seconds=parse_duration(text))
    except typer.BadParameter as error:
        wanted = "a time with zone, like 2026-01-31T12:00:00Z, or how long ago, like 12h"
        raise typer.BadParameter(f"{text!r} is not {wanted}") from error


def parse_pairs(pairs: Iterable[str], option: str) -> dict[str, str]:
    """`NAME=VALUE` items as a map; raises BadParameter for one without `=`."""
    result: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise typer.BadParameter(f"{pair!r} is not NAME=VALUE", param_hint=option)
        result[name] = value
    return result
