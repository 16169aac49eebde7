"""MaoClient's calls about catalogues: what can be installed on the node, and installing it."""

from __future__ import annotations

from collections.abc import Iterator

from mao_shared.models.catalogue import (
    CatalogueEntry,
    CatalogueKind,
    CatalogueSearch,
    CatalogueSource,
    InstallRequest,
)

from .gateway_http import PAGE_SIZE, GatewayHttp, url_path
from .responses import dump_body, parse_record, read_json
from .services import PULL_TIMEOUT

FETCH_TIMEOUT = 60.0  # seconds; the node may have to fetch its catalogues


class CatalogueCalls:
    """Entries of the node's catalogues, or of one that is sent along, and their installation."""

    def __init__(self, http: GatewayHttp) -> None:
        self.http = http

    def sources(self) -> list[CatalogueSource]:
        """Return the catalogues that are configured on the node."""
        document = read_json(response := self.http.send("GET", "/catalogue/sources", timeout=FETCH_TIMEOUT))
        return [parse_record(response, item, CatalogueSource) for item in document["items"]]

    def list(
        self, *, kind: CatalogueKind | None = None, q: str = "", source: str | None = None
    ) -> Iterator[CatalogueEntry]:
        """Yield the entries with all words of `q`; pages are fetched as the caller reads on."""
        params = {"kind": kind, "q": q or None, "source": source}
        return self.http.pages("/catalogue", CatalogueEntry, params)

    def search(self, search: CatalogueSearch) -> Iterator[CatalogueEntry]:
        """Yield the entries of a catalogue that is sent along."""
        params: dict[str, str | int] = {"limit": PAGE_SIZE}
        more = True
        while more:
            response = self.http.send("POST", "/catalogue/inspect", json=dump_body(search), params=params)
            document = read_json(response)
            yield from (parse_record(response, item, CatalogueEntry) for item in document["items"])
            if more := bool(document.get("cursor")):
                params["cursor"] = document["cursor"]

    def get(self, kind: CatalogueKind, name: str, source: str | None = None) -> CatalogueEntry:
        """Return an entry by name or title, with its record and what is missing."""
        return self.http.get(
            url_path("catalogue", kind, name), CatalogueEntry, {"source": source}, timeout=FETCH_TIMEOUT
        )

    def plan(self, request: InstallRequest) -> CatalogueEntry:
        """Return what an installation would do."""
        body = dump_body(request)
        return self.http.call("POST", "/catalogue/plan", CatalogueEntry, json=body, timeout=FETCH_TIMEOUT)

    def install(self, request: InstallRequest) -> CatalogueEntry:
        """Install an entry; pulls its images first.

        Raises InvalidInput (`catalogue-incomplete`) if something is missing; nothing is installed then.
        """
        body = dump_body(request)
        return self.http.call("POST", "/catalogue/install", CatalogueEntry, json=body, timeout=PULL_TIMEOUT)
