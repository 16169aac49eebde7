"""Reads catalogues from a file, a folder or an https URL, all of bounded size.

A catalogue is one document with lists of entries by kind, or a folder with one list a file, as the original's
marketplace has them: `pipelines.json`, `tools.json`, `federations.json`, and here also `datasets.json`. The
address of one of these files stands for their folder. A list in a file of another name is sorted by what its
entries have.

Only addresses that an operator or user has chosen may be passed to `read_parts`. Redirects are followed to
https only; the certificate then proves that the name, which a stranger chose, is that of the server.
"""

from __future__ import annotations

import asyncio
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import httpx
from pydantic import ValidationError

from mao_shared.errors import InvalidInput, MaoError, Unavailable
from mao_shared.git_urls import has_secret
from mao_shared.models.catalogue import CATALOGUE_KINDS, CatalogueContent, CatalogueKind
from mao_shared.problems import field_errors

MAX_BYTES = 1 << 20  # of one document; the node's API takes as much
FETCH_SECONDS = 20.0  # for one document, with its redirects
MAX_REDIRECTS = 3
MAX_DIGITS = 400  # of a number
WHOLE = ""
"""Name of the part that holds entries of all kinds."""
FILES = {f"{kind}.json": kind for kind in CATALOGUE_KINDS}


@dataclass(frozen=True)
class Location:
    """Where a catalogue is: `base` with a file for each kind, or one document."""

    address: str
    is_url: bool
    is_folder: bool

    def parts(self) -> dict[str, str]:
        """Return the documents to read, by kind, or the one by WHOLE."""
        if not self.is_folder:
            return {WHOLE: self.address}
        return {kind: f"{self.address.rstrip('/')}/{name}" for name, kind in FILES.items()}

    @property
    def shown(self) -> str:
        """The address without a query, which may be a secret."""
        return self.address.partition("?")[0]


def parse_location(text: str) -> Location:
    """Return what an address means. Raises ValueError for one that is neither a path nor an https URL."""
    scheme = urlsplit(text).scheme.lower() if "://" in text else ""
    if not scheme:
        path = Path(text).expanduser()
        if path.name in FILES:
            return Location(str(path.parent), is_url=False, is_folder=True)
        return Location(str(path), is_url=False, is_folder=path.is_dir())
    if scheme != "https":
        raise ValueError(f"{scheme}:// is not allowed; give an https:// URL or a file")
    parts = urlsplit(text)
    if not parts.hostname or has_secret(text) or parts.username:
        raise ValueError("the URL has no host, or a user or password before it")
    if PurePosixPath(parts.path).name in FILES and not parts.query:
        return Location(text.rpartition("/")[0] + "/", is_url=True, is_folder=True)
    is_folder = parts.path.endswith("/") or not parts.path
    return Location(text, is_url=True, is_folder=is_folder and not parts.query)


class CatalogueUnreadable(Unavailable):
    """A catalogue cannot be read, or is none."""

    default_code = "catalogue-unreadable"
    retry_after = None


async def read_parts(
    location: Location, transport: httpx.AsyncBaseTransport | None = None
) -> dict[str, bytes]:
    """Return the documents of a catalogue by kind, or the one by WHOLE. Raises CatalogueUnreadable.

    In a folder, files may be absent, but not all. `transport`: for tests.
    """
    wanted = location.parts()
    if location.is_url:
        found = await _fetch_all(wanted, transport)
    else:
        found = await asyncio.to_thread(_read_all, wanted)
    if not found:
        why = f"none of {', '.join(FILES)} is there" if location.is_folder else "there is nothing"
        raise _unreadable(location.shown, why, "Correct the address of the catalogue.")
    return found


def parse_parts(parts: Mapping[str, bytes]) -> CatalogueContent:
    """Return the entries of a catalogue's documents. Raises InvalidInput (`catalogue-invalid`). Pure."""
    lists: dict[str, list[Any]] = {kind: [] for kind in CATALOGUE_KINDS}
    for part, body in parts.items():
        for kind, entries in _entries(part, _load(part, body)).items():
            lists[kind] += entries
    try:
        return CatalogueContent.model_validate(lists)
    except ValidationError as error:
        first = field_errors(error.errors())[0]
        raise _invalid("", f"{first['field']}: {first['message']}") from error


def _load(part: str, body: bytes) -> Any:
    try:
        return json.loads(body.decode("utf-8"), parse_int=_integer)
    except (ValueError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise _invalid(part, f"it is not JSON in UTF-8: {why[:200]}") from error


def _integer(text: str) -> float:
    """Return a number; NaN, which the check of the entry finds, for one that is too long to convert."""
    return int(text) if len(text) < MAX_DIGITS else float("nan")


def _entries(part: str, document: Any) -> dict[CatalogueKind, list[Any]]:
    """Return the entries of one document by kind."""
    if isinstance(document, dict) and part == WHOLE:
        named: dict[CatalogueKind, list[Any]] = {}
        for kind in CATALOGUE_KINDS:
            entries = document.get(kind)
            if entries is not None and not isinstance(entries, list):
                raise _invalid(part, f"{kind!r} is not a list")
            named[kind] = entries or []
        if any(named.values()):
            return named
        if "name" not in document:
            raise _invalid(part, f"it has none of the lists {', '.join(CATALOGUE_KINDS)}")
        document = [document]  # a single entry
    if not isinstance(document, list):
        raise _invalid(part, "it is not a list of entries")
    if part != WHOLE:
        return {_kind(part): document}
    found: dict[CatalogueKind, list[Any]] = {}
    for entry in document:
        found.setdefault(guess_kind(entry), []).append(entry)
    return found


def _kind(part: str) -> CatalogueKind:
    return next(kind for kind in CATALOGUE_KINDS if kind == part)


def guess_kind(entry: Any) -> CatalogueKind:
    """Return the kind of an entry by the fields that it has; `pipelines` if nothing tells. Pure."""
    fields = entry if isinstance(entry, dict) else {}
    if isinstance(fields.get("body"), dict):
        fields = {**fields["body"], **fields}
    for field, kind in _TELLING.items():
        if field in fields:
            return kind
    return "pipelines"


_TELLING: dict[str, CatalogueKind] = {
    "steps": "pipelines",
    "image": "tools",
    "master": "datasets",
    "contacts": "federations",
}


def _invalid(part: str, why: str) -> MaoError:
    what = f"The catalogue's {part}.json" if part else "The catalogue"
    return InvalidInput(
        f"{what} cannot be used: {why}.",
        code="catalogue-invalid",
        next="Write lists of pipelines, tools, datasets and federations, as docs/catalogue.md shows.",
        why=why,
    )


def _unreadable(shown: str, why: str, next_step: str) -> CatalogueUnreadable:
    return CatalogueUnreadable(f"The catalogue {shown} cannot be read: {why}.", next=next_step, why=why)


# Files


def _read_all(wanted: Mapping[str, str]) -> dict[str, bytes]:
    found = {kind: _read_file(path) for kind, path in wanted.items()}
    return {kind: body for kind, body in found.items() if body is not None}


def _read_file(path: str) -> bytes | None:
    """Return the content of a file; None if there is none. Raises CatalogueUnreadable. Blocks."""
    try:
        # Neither waits for a writer of a pipe nor reads a device.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise _unreadable(path, "it is not a file", "Name a file, or a folder with the lists.")
            body = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unreadable(path, str(error.strerror), "Let the node's user read it.") from error
    return _bounded(path, body)


def _bounded(shown: str, body: bytes) -> bytes:
    if len(body) > MAX_BYTES:
        raise _unreadable(shown, f"it is larger than {MAX_BYTES} bytes", "Divide it into several catalogues.")
    return body


# URLs


async def _fetch_all(
    wanted: Mapping[str, str], transport: httpx.AsyncBaseTransport | None
) -> dict[str, bytes]:
    # The environment's proxy and SSL_CERT_FILE apply, as for git.
    async with httpx.AsyncClient(
        timeout=FETCH_SECONDS, follow_redirects=False, transport=transport
    ) as client:
        bodies = await asyncio.gather(*(_fetch(client, url) for url in wanted.values()))
    return {kind: body for kind, body in zip(wanted, bodies, strict=True) if body is not None}


async def _fetch(client: httpx.AsyncClient, url: str) -> bytes | None:
    """Return the body at a URL; None if there is none (404). Raises CatalogueUnreadable."""
    shown = url.partition("?")[0]
    try:
        async with asyncio.timeout(FETCH_SECONDS):
            return await _follow(client, httpx.URL(url), shown)
    except TimeoutError as error:
        why = f"it did not answer within {FETCH_SECONDS:.0f} s"
        raise _unreadable(shown, why, "Try again later.") from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        why = f"{type(error).__name__}: {str(error)[:200]}" if str(error) else type(error).__name__
        raise _unreadable(
            shown, why, "Check the address, and the proxy and certificates of this machine."
        ) from (error)


async def _follow(client: httpx.AsyncClient, url: httpx.URL, shown: str) -> bytes | None:
    for _ in range(MAX_REDIRECTS + 1):
        async with client.stream("GET", url, headers=_HEADERS) as response:
            if response.status_code in (404, 410):
                return None
            if response.is_redirect:
                url = url.join(response.headers.get("location", ""))
                if url.scheme != "https":
                    raise _unreadable(shown, "it redirects to an address that is not https", _ASK_OWNER)
                continue
            if response.status_code != httpx.codes.OK:
                raise _unreadable(shown, f"its server answered {response.status_code}", _ASK_OWNER)
            body = bytearray()
            async for piece in response.aiter_raw():  # not decompressed, which has no bound
                body += piece
                if len(body) > MAX_BYTES:
                    break
            return _bounded(shown, bytes(body))
    raise _unreadable(shown, f"it redirects more than {MAX_REDIRECTS} times", _ASK_OWNER)


_HEADERS = {"Accept": "application/json", "Accept-Encoding": "identity"}
_ASK_OWNER = "Correct the address, or ask who publishes the catalogue."
