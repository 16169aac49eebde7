"""Whether the node's etcd is still the one that this node has written to: the condition `store-reset`.

An etcd whose data were lost starts empty and answers as if nothing had ever been; one restored from a backup
answers with an earlier state. Both look well. So the registry has a random word in the store and in a file,
and beside it in the file how far the store's revision had got. Where they do not fit, nothing is adopted: the
condition stays failed, over restarts, until the operator has put the data back or said that the store as it
is now shall count (`maoctl node accept-store`). docs/decisions/0024-conditions.md says why.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
from dataclasses import dataclass, replace
from pathlib import Path

from mao_shared import keys
from mao_shared.conditions import Conditions
from mao_shared.errors import MaoError
from mao_shared.logs import get_logger
from mao_shared.store import Check, Examinable, Put, Store

log = get_logger(__name__)

CHECK_PERIOD = 30.0  # seconds between two looks
RETRY_PERIOD = 2.0  # while something is wrong, or the store is away
SAVE_PERIOD = 60.0  # seconds between two writes of the file, when the store has grown
RESTORE_STEP = (
    "Restore the last backup: stop the node, then maoctl node restore FILE --replace. Or put etcd's data "
    "back (its folder, or a snapshot with 'etcdctl snapshot restore') and start the node; or let the store "
    "count as it is now: maoctl node accept-store, then register and schedule again what is missing. The "
    "datasets' git data are there. See docs/operations.md."
)

RENAMED_STEP = (
    "Set MAO_NODE={} and start again; nothing is lost. For a node of another name take another MAO_DATA_DIR. "
    "To begin anew under this name: maoctl node accept-store, then register and enrol again."
)


@dataclass(frozen=True, slots=True)
class SavedIdentity:
    """What the file holds: the store's word, a revision that it had reached, and the node's name."""

    word: str
    revision: int
    node: str = ""  # files of an earlier version have none


@dataclass(frozen=True, slots=True)
class ObservedIdentity:
    """What the store says; `word` is None where it has none."""

    word: str | None
    revision: int


def find_mismatch(known: SavedIdentity | None, seen: ObservedIdentity, node: str) -> str | None:
    """Pure: how the store is not the one it was; None when it is, or nothing is known of before."""
    if known is None:
        return None
    if known.node and known.node != node:
        return (
            f"this data directory is that of the node {known.node!r}, and this node is called {node!r}: what "
            "etcd holds bears the other name"
        )
    if seen.word is None:
        return "etcd's data are gone: it holds nothing of what this node has written to it"
    if seen.word != known.word:
        return "another store answers in place of this node's etcd"
    if seen.revision < known.revision:
        return (
            f"etcd was set back: it is at revision {seen.revision} and had reached {known.revision}, so what "
            "was written last is missing"
        )
    return None


class StoreIdentity:
    """`run` has to run beside the registry; `file` is the registry's alone."""

    def __init__(self, node: str, store: Store, file: Path, conditions: Conditions) -> None:
        self._node = node
        self._key = keys.store_identity(node)
        self._store = store
        self._file = file
        self._conditions = conditions
        self._noted_at = float("-inf")
        self._filed: SavedIdentity | None = None  # what the file holds, once it was read
        self._highest = 0  # revision that was seen; the file is not written at every look
        self._turn = asyncio.Lock()  # a look must not undo what was just accepted

    async def run(self) -> None:
        """For ever."""
        while True:
            try:
                well = await self.look()
            except MaoError:  # it does not answer, or takes no writes: `store` tells that
                well = False
            except Exception as error:  # noqa: BLE001 (say, a file that cannot be written: look again)
                log.warning("store_identity.not_looked", error=str(error))
                well = False
            await asyncio.sleep(CHECK_PERIOD if well else RETRY_PERIOD)

    async def look(self) -> bool:
        """One look; whether the store is the one it was. Raises MaoError and OSError."""
        async with self._turn:
            if self._filed is None:
                self._filed = await asyncio.to_thread(read, self._file)
            known, seen = self._filed, await self._seen()
            if known is not None:
                known = replace(known, revision=max(known.revision, self._highest))
            fault = find_mismatch(known, seen, self._node)
            if fault is not None:
                detail = f"{fault[0].upper()}{fault[1:]}."
                renamed = known is not None and known.node not in ("", self._node)
                next_step = RENAMED_STEP.format(known.node) if renamed and known is not None else RESTORE_STEP
                self._conditions.report("store-reset", detail=detail, next_step=next_step, state="failed")
                return False
            self._conditions.clear("store-reset")
            await self._take(self._filed, seen)
            return True

    async def accept(self) -> None:
        """The store as it is now shall count: the operator's word. Raises MaoError and OSError."""
        async with self._turn:
            seen = await self._seen()
            log.warning("store_identity.accepted", revision=seen.revision)
            await self._take(None, seen)
            self._conditions.clear("store-reset")

    async def _take(self, filed: SavedIdentity | None, seen: ObservedIdentity) -> None:
        """Writes word and revision where they lack; the store first, so that the file never runs ahead."""
        word = seen.word
        if word is None:
            word = secrets.token_hex(16)
            if await self._store.transact([Check(self._key, 0)], [Put(self._key, word.encode())]) is None:
                return  # somebody was faster; the next look reads it
        self._highest = seen.revision
        now = asyncio.get_running_loop().time()
        grown = filed is None or (seen.revision > filed.revision and now - self._noted_at >= SAVE_PERIOD)
        if grown:
            known = SavedIdentity(word, seen.revision, self._node)
            await asyncio.to_thread(write, self._file, known)
            self._filed, self._noted_at = known, now

    async def _seen(self) -> ObservedIdentity:
        entry = await self._store.get(self._key)
        health = await self._store.examine() if isinstance(self._store, Examinable) else None
        return ObservedIdentity(
            None if entry is None else entry.value.decode(errors="replace"),
            0 if health is None else health.revision,
        )


def read(file: Path) -> SavedIdentity | None:
    """What the file holds; None where it is not there or not whole. Blocking."""
    try:
        document = json.loads(file.read_text())
        return SavedIdentity(str(document["word"]), int(document["revision"]), str(document.get("node", "")))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        log.warning("store_identity.file_unreadable", file=str(file), error=str(error))
        return None


def write(file: Path, known: SavedIdentity) -> None:
    """At once or not at all. Blocking."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = file.with_name(file.name + ".new")
    with new.open("w") as stream:
        json.dump({"word": known.word, "revision": known.revision, "node": known.node}, stream)
        stream.flush()
        os.fsync(stream.fileno())
    new.replace(file)
