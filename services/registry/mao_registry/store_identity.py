"""Detection of a node store that lost data or was replaced: the condition `store-reset`.

An etcd that lost its data starts empty, and one restored from a backup answers with an earlier state. Both
look healthy. So the registry keeps a random id in the store and in a file, and in the file also the highest
revision of the store. If they do not match, the file is not updated: the condition stays failed, even after
a restart, until the operator restores the data or accepts the store as it is now (`maoctl node
accept-store`). See docs/decisions/0024-conditions.md.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from dataclasses import dataclass, replace
from pathlib import Path

from mao_shared import keys
from mao_shared.conditions import Conditions
from mao_shared.errors import MaoError
from mao_shared.host.files import replace_file
from mao_shared.logs import get_logger
from mao_shared.reconcile import Backoff, every
from mao_shared.store import Check, Examinable, Put, Store

log = get_logger(__name__)
CHECK_PERIOD = 30.0  # seconds
MISMATCH_RETRY = 2.0  # seconds between checks while the ids differ or the store does not answer
SAVE_PERIOD = 60.0  # seconds between writes of the file while the store's revision grows
RESTORE_STEP = (
    "Restore the last backup: stop the node, then maoctl node restore FILE --replace. Or put etcd's data "
    "back (its directory, or a snapshot with 'etcdctl snapshot restore') and start the node. Or accept the "
    "store as it is now: maoctl node accept-store, then register and schedule again what is missing. The "
    "datasets' git data are there. See docs/operations.md."
)
RENAMED_STEP = (
    "Set MAO_NODE={} and restart; nothing is lost. A node of another name needs another MAO_DATA_DIR. "
    "To start over under this name: maoctl node accept-store, then register and enrol again."
)


@dataclass(frozen=True, slots=True)
class SavedIdentity:
    """Content of the file: the store's id, the highest revision seen, and the node's name."""

    id: str
    revision: int
    node: str = ""  # empty in files of an earlier version


@dataclass(frozen=True, slots=True)
class ObservedIdentity:
    """The store's id (None if it has none) and revision."""

    id: str | None
    revision: int


def find_mismatch(saved: SavedIdentity | None, observed: ObservedIdentity, node: str) -> str | None:
    """Return how the store differs from the saved identity, if at all; None if nothing was saved. Pure."""
    if saved is None:
        return None
    if saved.node and saved.node != node:
        return (
            f"This data directory is that of the node {saved.node!r}, and this node is called {node!r}: what "
            "etcd holds has the other name."
        )
    if observed.id is None:
        return "Etcd's data are gone: it holds nothing of what this node has written to it."
    if observed.id != saved.id:
        return "Another store answers in place of this node's etcd."
    if observed.revision < saved.revision:
        return (
            f"Etcd was set back: it is at revision {observed.revision} and had reached {saved.revision}, so "
            "what was written last is missing."
        )
    return None


class StoreIdentity:
    """Compares the store with `file`, which only the registry writes."""

    def __init__(self, node: str, store: Store, file: Path, conditions: Conditions) -> None:
        self._node = node
        self._key = keys.store_identity(node)
        self._store = store
        self._file = file
        self._conditions = conditions
        self._saved_at = float("-inf")
        self._saved: SavedIdentity | None = None  # once the file was read
        self._highest = 0  # revision seen; the file is not written at every check
        self._lock = asyncio.Lock()  # a check must not undo what was just accepted

    async def run(self) -> None:
        """Run until cancelled."""

        async def step() -> float | None:
            return None if await self.check() else MISMATCH_RETRY

        pace = Backoff(MISMATCH_RETRY, MISMATCH_RETRY)
        await every(CHECK_PERIOD, step, name="store-identity", away=pace, failing=pace, outages=MaoError)

    async def check(self) -> bool:
        """Report or clear the condition; return whether the store matches the saved identity.

        Raises MaoError and OSError.
        """
        async with self._lock:
            if self._saved is None:
                self._saved = await asyncio.to_thread(read, self._file)
            saved, observed = self._saved, await self._observe()
            if saved is not None:
                saved = replace(saved, revision=max(saved.revision, self._highest))
            mismatch = find_mismatch(saved, observed, self._node)
            if mismatch is None:
                self._conditions.clear("store-reset")
                await self._adopt(self._saved, observed)
                return True
            step = RESTORE_STEP
            if saved is not None and saved.node not in ("", self._node):
                step = RENAMED_STEP.format(saved.node)
            self._conditions.report("store-reset", detail=mismatch, next_step=step, state="failed")
            return False

    async def accept(self) -> None:
        """Accept the store as it is now, on the operator's command. Raises MaoError and OSError."""
        async with self._lock:
            observed = await self._observe()
            log.warning("store_identity.accepted", revision=observed.revision)
            await self._adopt(None, observed)
            self._conditions.clear("store-reset")

    async def _adopt(self, saved: SavedIdentity | None, observed: ObservedIdentity) -> None:
        """Write the id to the store if it has none, then id and revision to the file."""
        store_id = observed.id
        if store_id is None:
            store_id = secrets.token_hex(16)
            written = [Put(self._key, store_id.encode())]
            if await self._store.transact([Check(self._key, 0)], written) is None:
                return  # another writer came first; the next check reads it
        self._highest = observed.revision
        now = asyncio.get_running_loop().time()
        if saved is None or (observed.revision > saved.revision and now - self._saved_at >= SAVE_PERIOD):
            adopted = SavedIdentity(store_id, observed.revision, self._node)
            await asyncio.to_thread(write, self._file, adopted)
            self._saved, self._saved_at = adopted, now

    async def _observe(self) -> ObservedIdentity:
        entry = await self._store.get(self._key)
        health = await self._store.examine() if isinstance(self._store, Examinable) else None
        return ObservedIdentity(
            None if entry is None else entry.value.decode(errors="replace"),
            0 if health is None else health.revision,
        )


def read(file: Path) -> SavedIdentity | None:
    """Read the file; None if it does not exist or is damaged. Blocks."""
    try:
        document = json.loads(file.read_text())
        return SavedIdentity(str(document["word"]), int(document["revision"]), str(document.get("node", "")))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        log.warning("store_identity.file_unreadable", file=str(file), error=str(error))
        return None


def write(file: Path, saved: SavedIdentity) -> None:
    """Replace the file atomically. Blocks."""
    document = {"word": saved.id, "revision": saved.revision, "node": saved.node}
    replace_file(file, json.dumps(document).encode())
