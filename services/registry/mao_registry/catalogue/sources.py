"""The catalogues that the operator configured. No caller can name an address to read."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from mao_shared.clients.catalogue import Location, parse_location, parse_parts, read_parts
from mao_shared.clock import Clock
from mao_shared.errors import MaoError, NotFound
from mao_shared.models import is_name
from mao_shared.models.catalogue import CatalogueSource
from mao_shared.models.pipeline import name_from_title

from .entries import Catalogue, read_catalogue

KEEP_SECONDS = 300.0  # how long what was fetched from a URL is used; files are read for each call
MAX_SOURCES = 20


def parse_sources(text: str) -> dict[str, str]:
    """Return name → address of `[NAME=]ADDRESS` items separated by blanks or commas.

    Without a name, a catalogue is called like its host or file. Raises ValueError.
    """
    found: dict[str, str] = {}
    for item in text.replace(",", " ").split():
        name, equals, address = item.partition("=")
        if not equals or not is_name(name):
            name, address = "", item
        location = parse_location(address)
        name = name or _own_name(location)
        if name in found:
            raise ValueError(f"two catalogues are called {name!r}; write NAME=ADDRESS")
        found[name] = address
    if len(found) > MAX_SOURCES:
        raise ValueError(f"at most {MAX_SOURCES} catalogues are accepted")
    return found


def _own_name(location: Location) -> str:
    path = location.address.rstrip("/")
    if location.is_url:
        return name_from_title(path.split("/")[2])
    return name_from_title(path.rpartition("/")[2].removesuffix(".json") or "catalogue")


@dataclass(frozen=True)
class _Fetched:
    at: float  # seconds
    catalogue: Catalogue


class Sources:
    """Reads the configured catalogues. `locations`: name → where it is."""

    def __init__(self, locations: Mapping[str, str], clock: Clock) -> None:
        self._locations = {name: parse_location(address) for name, address in locations.items()}
        self._clock = clock
        self._fetched: dict[str, _Fetched] = {}
        self._locks = {name: asyncio.Lock() for name in self._locations}

    @property
    def names(self) -> list[str]:
        return list(self._locations)

    async def read(self, name: str) -> Catalogue:
        """Return a catalogue. Raises NotFound (`catalogue-unknown`), CatalogueUnreadable, InvalidInput."""
        location = self._locations.get(name)
        if location is None:
            raise NotFound(
                f"No catalogue {name!r} is configured on this node.",
                code="catalogue-unknown",
                next="See those that are: maoctl catalogue sources; the setting is MAO_CATALOGUES.",
            )
        async with self._locks[name]:  # one fetch at a time
            kept = self._fetched.get(name)
            now = self._clock.now().timestamp()
            if kept is not None and 0 <= now - kept.at < KEEP_SECONDS:
                return kept.catalogue
            parts = await read_parts(location)
            catalogue = await asyncio.to_thread(lambda: read_catalogue(name, parse_parts(parts)))
            if location.is_url:
                self._fetched[name] = _Fetched(now, catalogue)
            return catalogue

    async def read_all(self) -> tuple[list[Catalogue], dict[str, MaoError]]:
        """Return the catalogues that can be read, and the errors of the others by name."""
        results = await asyncio.gather(*map(self.read, self.names), return_exceptions=True)
        catalogues: list[Catalogue] = []
        errors: dict[str, MaoError] = {}
        for name, result in zip(self.names, results, strict=True):
            if isinstance(result, Catalogue):
                catalogues.append(result)
            elif isinstance(result, MaoError):
                errors[name] = result
            else:
                raise result
        return catalogues, errors

    def location(self, name: str) -> str:
        """Return where a catalogue is, without the query of its URL."""
        return self._locations[name].shown

    async def states(self) -> list[CatalogueSource]:
        """Return the configured catalogues, and why those that cannot be read cannot."""
        catalogues, errors = await self.read_all()
        counts = {catalogue.source: len(catalogue.entries) for catalogue in catalogues}
        return [
            CatalogueSource(
                name=name,
                location=self.location(name),
                entries=counts.get(name),
                fault=errors[name].detail if name in errors else None,
                next=errors[name].next if name in errors else None,
            )
            for name in self.names
        ]
