"""Dump and load a store as lines of JSON at one revision, independent of the version of etcd.

    {"revision": of the key's last change, "key": …, "text" or "base64": its value}

Keys are loaded in the order in which they were written, and those written in one transaction are loaded in
one, so that guards by revision stay valid.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import IO, Any

from mao_shared import keys
from mao_shared.errors import Conflict, InvalidInput, StoreUnknown

from .protocol import Check, Entry, Put, Store
from .records import pages, retry_lost

PAGE = 500  # keys per read
BATCH = 64  # keys per write, unless one transaction wrote more
BATCH_BYTES = 400_000
TRIES = 8  # attempts of a write without a response


async def dump_keys(
    store: Store, node: str, write: Callable[[bytes], object], look: Callable[[Entry], None] = lambda _: None
) -> int:
    """Write a node's store, one line per key; return its revision. `look` is called with each entry.

    Leased keys and keys of other nodes on the same etcd are omitted. Raises Compacted if the store has
    compacted that revision meanwhile: call it again.
    """
    revision = 0
    own, others = keys.node_root(node), keys.all_nodes()
    async for page in pages(lambda cursor: store.list(keys.ROOT, limit=PAGE, cursor=cursor)):
        revision = page.revision
        for entry in page.entries:
            foreign = entry.key.startswith(others) and not entry.key.startswith(own)
            if not entry.leased and not foreign:
                write(_line(entry))
                look(entry)
    return revision


def _line(entry: Entry) -> bytes:
    line: dict[str, Any] = {"revision": entry.revision, "key": entry.key}
    try:
        line["text"] = entry.value.decode()
    except UnicodeDecodeError:
        line["base64"] = base64.b64encode(entry.value).decode()
    return json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def read_groups(file: IO[bytes], wanted: Callable[[str], bool] = lambda _: True) -> Iterator[list[Put]]:
    """Yield the wanted keys of a dump, grouped by their original transaction, oldest first.

    `file` is read twice. Raises InvalidInput (`backup-invalid`) for an invalid line.
    """
    places: list[tuple[int, int]] = []
    offset, number = 0, 0
    for number, line in enumerate(file, 1):
        revision, put = _parse(line, number)
        if wanted(put.key):
            places.append((revision, offset))
        offset += len(line)
    for _, group in groupby(sorted(places), key=itemgetter(0)):
        puts: list[Put] = []
        for _, place in group:
            file.seek(place)
            puts.append(_parse(file.readline(), number)[1])
        yield puts


def _parse(line: bytes, number: int) -> tuple[int, Put]:
    try:
        fields = json.loads(line)
        text = fields.get("text")
        value = base64.b64decode(fields["base64"], validate=True) if text is None else text.encode()
        key, revision = str(fields["key"]), int(fields["revision"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _invalid(number, "it is not a line of a store backup") from error
    if not key.startswith(f"{keys.ROOT}/"):
        raise _invalid(number, f"its key {key!r} does not belong to MAO")
    return revision, Put(key, value)


def _invalid(line: int, why: str) -> InvalidInput:
    return InvalidInput(
        f"Line {line} of the backup's store is invalid: {why}.",
        code="backup-invalid",
        next="Take another backup.",
    )


async def load_keys(store: Store, node: str, groups: Iterable[Sequence[Put]]) -> int:
    """Write the absent keys, each group in one transaction; return their number.

    Existing keys with the same value are skipped, so the call may be repeated. Existing records that other
    nodes on the same etcd use are not changed. Raises Conflict (`store-not-empty`) if a key of the node
    itself has another value.
    """
    written = 0
    for batch in _batches(groups):
        puts = [put for group in batch for put in group]
        if await _create(store, puts):
            written += len(puts)
            continue
        for group in batch:
            written += await _create_absent(store, node, group)
    return written


def _batches(groups: Iterable[Sequence[Put]]) -> Iterator[list[Sequence[Put]]]:
    """Combine whole groups into batches that fit one transaction."""
    batch: list[Sequence[Put]] = []
    count, size = 0, 0
    for group in groups:
        more = sum(len(put.value) for put in group)
        if batch and (count + len(group) > BATCH or size + more > BATCH_BYTES):
            yield batch
            batch, count, size = [], 0, 0
        batch.append(group)
        count += len(group)
        size += more
    if batch:
        yield batch


async def _create(store: Store, puts: Sequence[Put]) -> bool:
    """Create all keys; False if one exists, perhaps because an earlier attempt was applied."""
    for attempt in range(TRIES):
        try:
            return await store.transact([Check(put.key, 0) for put in puts], puts) is not None
        except StoreUnknown:
            if attempt == TRIES - 1:
                raise
            await asyncio.sleep(0.1 * 2**attempt)
    raise AssertionError("the last try returns or raises")


async def _create_absent(store: Store, node: str, group: Sequence[Put]) -> int:
    """Write the absent keys of a group in one transaction; return their number."""

    async def attempt() -> int | None:
        absent: list[Put] = []
        for put in group:
            existing = await store.get(put.key)
            if existing is None:
                absent.append(put)
            elif existing.value != put.value and put.key.startswith(keys.node_root(node)):
                raise Conflict(
                    f"The store already has {put.key}, with another value than the backup.",
                    code="store-not-empty",
                    next="Restore into an empty store, or replace its content: "
                    "maoctl node restore FILE --replace",
                )
        return len(absent) if not absent or await _create(store, absent) else None

    return await retry_lost(attempt, "the store")
