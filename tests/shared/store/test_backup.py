"""Export of a store's keys as lines, and import: at one revision, without leases, repeatable."""

from __future__ import annotations

import io
from typing import Any

import pytest

from mao_shared import keys
from mao_shared.errors import Conflict, InvalidInput
from mao_shared.store import Page, Put, Store, backup
from mao_shared.store.backup import dump_keys, load_keys, read_groups
from mao_shared.store.memory import MemoryStore

OWN, OTHER = keys.schedule("node-1", "s"), keys.schedule("node-2", "s")
UNDECODABLE = keys.run("node-1", "odd")


async def fill(store: Store) -> None:
    lease = await store.grant(60)
    await store.create(OWN, b'{"a":"\xc3\xa4\\n"}')
    await store.create(OTHER, b"{}")
    await store.create(keys.registry("tools", "t"), b"{}")
    await store.create(UNDECODABLE, b"\xff\x00no text")
    await store.create(keys.member("node-1"), b"{}", lease=lease)
    await store.create(keys.idempotency("node-1", "a", "b"), b"{}", lease=lease)


def read_all(text: bytes) -> list[Put]:
    puts = [put for group in read_groups(io.BytesIO(text)) for put in group]
    return sorted(puts, key=lambda put: put.key)


async def dumped(store: Store) -> tuple[bytes, int]:
    stream = io.BytesIO()
    revision = await dump_keys(store, "node-1", stream.write)
    return stream.getvalue(), revision


async def test_backup_restores_bytes_except_leases_and_other_nodes(store: Store) -> None:
    await fill(store)
    text, revision = await dumped(store)
    assert revision == (await store.list("/mao")).revision
    puts = {put.key: put.value for put in read_all(text)}
    assert puts == {
        OWN: b'{"a":"\xc3\xa4\\n"}',
        keys.registry("tools", "t"): b"{}",
        UNDECODABLE: b"\xff\x00no text",
    }
    new = MemoryStore()
    assert await load_keys(new, "node-1", read_groups(io.BytesIO(text))) == len(puts)
    assert {entry.key: entry.value for entry in (await new.list("/mao")).entries} == puts


async def test_backup_all_pages_show_one_moment(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup, "PAGE", 2)
    names = [keys.run("node-1", f"r{n}") for n in range(6)]
    for name in names:
        await store.create(name, b"old")
    listed, lines = store.list, list[bytes]()

    async def changing(prefix: str, **how: Any) -> Page:
        page = await listed(prefix, **how)
        if "cursor" in how and how["cursor"] is None:  # behind the first page everything becomes another
            for name in names:
                await store.delete(name)
            await store.create(names[5], b"new")
        return page

    monkeypatch.setattr(store, "list", changing, raising=False)
    await dump_keys(store, "node-1", lines.append)
    assert [(put.key, put.value) for put in read_all(b"".join(lines))] == [(name, b"old") for name in names]


async def test_backup_load_is_idempotent_and_resumes(store: Store) -> None:
    puts = [[Put(keys.run("node-1", f"r{n:03}"), b"x" * n)] for n in range(200)]
    assert await load_keys(store, "node-1", puts[:70]) == 70
    assert await load_keys(store, "node-1", puts) == 130
    before = (await store.list("/mao")).entries
    assert await load_keys(store, "node-1", puts) == 0
    assert (await store.list("/mao")).entries == before


async def test_backup_load_keeps_shared_records_and_refuses_own_conflicts(store: Store) -> None:
    shared = keys.registry("tools", "t")
    await store.create(shared, b"newer")
    assert await load_keys(store, "node-1", [[Put(shared, b"older")]]) == 0
    entry = await store.get(shared)
    assert entry is not None
    assert entry.value == b"newer"
    await store.create(OWN, b"other")
    with pytest.raises(Conflict) as caught:
        await load_keys(store, "node-1", [[Put(OWN, b"{}")]])
    assert caught.value.code == "store-not-empty"


async def test_backup_load_keeps_transactions_and_their_order(store: Store) -> None:
    later, earlier = keys.run("node-1", "a"), keys.run("node-1", "z")
    await store.create(earlier, b"{}")
    pairs = [(keys.run("node-1", f"doc{n}"), keys.series("node-1", "p", "s", f"index{n}")) for n in range(60)]
    for pair in pairs:
        assert await store.transact([], [Put(key, b"{}") for key in pair]) is not None
    many = [Put(keys.run("node-1", f"many{n:03}"), b"{}") for n in range(120)]
    assert await store.transact([], many) is not None
    await store.create(later, b"{}")
    text, _ = await dumped(store)
    for key in [entry.key for entry in (await store.list("/mao")).entries]:
        await store.delete(key)
    await load_keys(store, "node-1", read_groups(io.BytesIO(text)))
    revisions = {entry.key: entry.revision for entry in (await store.list("/mao")).entries}
    assert all(revisions[one] == revisions[other] for one, other in pairs)
    assert len({revisions[put.key] for put in many}) == 1
    assert revisions[earlier] < revisions[later]


@pytest.mark.parametrize("there", ["registry", "half of a pair"])
async def test_backup_load_keeps_transactions_beside_existing_keys(store: Store, there: str) -> None:
    """A run in the history and its index entry share a revision, as do a turn and its run."""
    pairs = [
        (keys.past_run("node-1", f"r{n}"), keys.run_index("node-1", "failed", "p", f"r{n}")) for n in range(3)
    ]
    shared = keys.registry("tools", "t")
    groups = [[Put(key, b"{}") for key in pair] for pair in pairs]
    groups.insert(1, [Put(shared, b"older"), Put(keys.turn("node-1", "a"), b"{}"), Put(OWN, b"{}")])
    await store.create(shared if there == "registry" else pairs[0][0], b"{}")
    assert await load_keys(store, "node-1", groups) == 8
    assert await load_keys(store, "node-1", groups) == 0
    found = {entry.key: entry.revision for entry in (await store.list("/mao")).entries}
    assert found.keys() == {put.key for group in groups for put in group}
    assert all(found[one] == found[other] for one, other in pairs[1:])
    assert found[keys.turn("node-1", "a")] == found[OWN]


@pytest.mark.parametrize(
    "said",
    [
        b"\n",
        b"{\n",
        b"[]\n",
        b"null\n",
        b'{"revision":1,"key":"/mao/x"}\n',
        b'{"revision":1,"key":"/x","text":""}\n',
        b'{"revision":1,"key":"/mao/x","text":3}\n',
        b'{"revision":1,"key":"/mao/x","base64":"?"}\n',
        b'{"revision":"one","key":"/mao/x","text":""}\n',
    ],
)
def test_backup_load_rejects_malformed_line(said: bytes) -> None:
    with pytest.raises(InvalidInput) as caught:
        read_all(said)
    assert caught.value.code == "backup-invalid"


async def test_backup_entries_mark_leased_keys(store: Store) -> None:
    await fill(store)
    leased = {entry.key for entry in (await store.list("/mao")).entries if entry.leased}
    assert leased == {keys.member("node-1"), keys.idempotency("node-1", "a", "b")}
    entry = await store.get(keys.member("node-1"))
    assert entry is not None
    assert entry.leased
