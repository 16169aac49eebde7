"""Find and open the federation's store from the node's link; its files on this node."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from mao_shared import keys
from mao_shared.errors import StoreUnavailable
from mao_shared.host.files import replace_file
from mao_shared.logs import get_logger
from mao_shared.models.common import STORED
from mao_shared.models.federation import Link
from mao_shared.reconcile import STORE_BACKOFF, follow
from mao_shared.store import Batch, Entry, Store
from mao_shared.store.endpoints import TlsFiles
from mao_shared.store.unreadable import fault

from .binding import StoreBinding, federation_unreachable


class FederationFiles:
    """Paths of the files in MAO_FEDERATION_DIR, all with mode 0600 in a folder with 0700."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @property
    def ca(self) -> Path:
        """The authority's certificate."""
        return self.directory / "ca.pem"

    @property
    def identity(self) -> Path:
        """The node's client certificate for the federation's etcd, and its private key.

        In one file, so that a renewal replaces both atomically.
        """
        return self.directory / "client.pem"

    @property
    def server_identity(self) -> Path:
        """Certificate and key of a core node's etcd member, for clients and peers."""
        return self.directory / "server.pem"

    @property
    def etcd_config(self) -> Path:
        """The configuration file of etcd; exists on core nodes only."""
        return self.directory / "etcd.yaml"

    @property
    def etcd_data(self) -> Path:
        """Folder of the etcd member's data."""
        return self.directory / "etcd"

    def tls(self) -> TlsFiles:
        """Return the TLS files with which `open_store` authenticates as this node."""
        return TlsFiles(ca=self.ca, certificate=self.identity, key=self.identity)

    def missing(self) -> list[Path]:
        """Return the files of `tls` that do not exist."""
        return [path for path in (self.ca, self.identity) if not path.is_file()]

    def write(self, path: Path, content: str | bytes) -> None:
        """Replace one file atomically and durably; raises OSError."""
        replace_file(path, content.encode() if isinstance(content, str) else content)

    def write_identity(self, *, ca: str, certificate: str, key: str) -> None:
        """Write the files of `tls`, all PEM.

        Call it before writing the `Link`, whose `generation` is incremented with each pair.
        """
        self.write(self.ca, ca)
        self.write(self.identity, f"{certificate.strip()}\n{key.strip()}\n")

    def remove_identity(self) -> None:
        """Remove the node's identity; missing files are ignored."""
        for path in (self.identity, self.ca):
            path.unlink(missing_ok=True)


log = get_logger(__name__)
Opener = Callable[..., Store]
CALL_TIMEOUT = 3.0  # seconds for one call to the federation's etcd


@dataclass(frozen=True)
class BindingOpener:
    """Opens the binding of a link; see FederationStore."""

    own: Store
    files: FederationFiles
    fixed: Store | None
    endpoints: str | None
    opener: Opener

    def open(self, link: Link | None) -> StoreBinding:
        """Return the binding of a link; its `fault` is set if the store cannot be opened."""
        if link is None:
            if self.fixed is not None and self.fixed is not self.own:
                return StoreBinding("fixed", self.fixed)
            if self.endpoints is not None:
                return self._opened(self.endpoints, self.endpoints, None, deadline=CALL_TIMEOUT)
            return StoreBinding("", self.own)
        missing = self.files.missing()
        if missing:
            return StoreBinding(
                link.id, None, link=link, fault=f"the certificate {missing[0].name} is missing"
            )
        endpoints = ",".join(link.endpoints)
        return self._opened(link.id, endpoints, link, deadline=CALL_TIMEOUT, tls=self.files.tls())

    def _opened(self, name: str, endpoints: str, link: Link | None, **how: object) -> StoreBinding:
        try:
            return StoreBinding(name, self.opener(endpoints, **how), link=link, opened=True)
        except StoreUnavailable as error:
            return StoreBinding(name, None, link=link, fault=error.detail)
        except (OSError, ValueError) as error:
            return StoreBinding(name, None, link=link, fault=f"it cannot be opened ({error})")


class BindingResolver:
    """Holds the current binding, and retired ones until their last calls end.

    `on_change` is called with the previous and the new binding.
    """

    def __init__(
        self,
        own: Store,
        node: str,
        opener: BindingOpener,
        on_change: Callable[[StoreBinding, StoreBinding], None],
    ) -> None:
        self.now: StoreBinding | None = None
        self._own = own
        self._node = node
        self._opener = opener
        self._on_change = on_change
        self._opening_lock = asyncio.Lock()
        self._retired: list[StoreBinding] = []

    async def current(self) -> StoreBinding:
        """Return the current binding; the first call reads the link, and raises outages of the own store."""
        if self.now is None:
            async with self._opening_lock:
                link, _ = await self._read_link()
                if self.now is None:  # `follow` may have been faster
                    self.now = self._opener.open(link)
        return self.now

    def reopen(self, binding: StoreBinding) -> None:
        """Retry opening a binding that could not be opened."""
        if binding is self.now and not binding.is_open:
            self.now = self._opener.open(binding.link)

    async def close(self) -> None:
        """Close all bindings; calls in progress finish first."""
        if self.now is not None:
            self.now.retire()
            self._retired.append(self.now)
        for binding in self._retired:
            await binding.closed()

    async def follow(self) -> None:
        """Switch to the binding of each new link until cancelled."""
        key = keys.link(self._node)
        await follow(
            self._own, key, self._take, start=self._start, name="federation-link", away=STORE_BACKOFF
        )

    async def _start(self) -> int:
        link, revision = await self._read_link()
        self._move(link)
        return revision

    def _take(self, batch: Batch) -> None:
        for event in batch:
            if event.key == keys.link(self._node):
                self._move(self._parse(event.entry))

    async def _read_link(self) -> tuple[Link | None, int]:
        """Return the link, and the own store's revision at which it was read."""
        key = keys.link(self._node)
        page = await self._own.list(key)
        return self._parse(next((entry for entry in page.entries if entry.key == key), None)), page.revision

    def _parse(self, entry: Entry | None) -> Link | None:
        if entry is None:
            return None
        try:
            return Link.model_validate_json(entry.value, context=STORED)
        except ValidationError as error:
            log.error("federation.link_unreadable", error=fault(error))
            if self.now is None:  # falling back to the own store would be wrong
                raise federation_unreachable(
                    "the record of this node's link to it cannot be read."
                ) from error
            return self.now.link

    def _move(self, link: Link | None) -> None:
        """Switch to the store that `link` names, unless it is in use already."""
        before = self.now
        if before is not None and before.link == link:
            return
        self.now = self._opener.open(link)
        if before is None:
            return
        before.retire()
        self._retired = [binding for binding in [*self._retired, before] if not binding.is_closed]
        if before.name != self.now.name:
            log.info("federation.switched", to=link.federation if link else "own store")
        self._on_change(before, self.now)
