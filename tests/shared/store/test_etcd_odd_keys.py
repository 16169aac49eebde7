"""Keys that are not UTF-8, which any member can write under its prefix, break no other member."""

from __future__ import annotations

import base64

import pytest

from mao_shared.store import Entry, open_store
from mao_shared.store.protocol import read_cursor, write_cursor
from tests.support.etcd import EtcdServer

PREFIX = "/mao/peers/evil/"


def _put(server: EtcdServer, key: bytes) -> None:
    server.call("kv/put", key=base64.b64encode(key).decode(), value="")


@pytest.mark.etcd
async def test_odd_keys_are_omitted_from_lists_and_watches(etcd_server: EtcdServer) -> None:
    etcd_server.wipe()
    store = open_store(etcd_server.endpoints)
    before = await store.create(PREFIX + "a", b"")
    assert before
    odd = [PREFIX.encode() + name for name in (b"b\xff", b"c\xfe", b"\0d")]
    for key in odd:
        _put(etcd_server, key)
    last = await store.create(PREFIX + "z", b"")
    assert last
    for newest_first in (False, True):
        found: list[Entry] = []
        cursor = None
        while True:
            page = await store.list(PREFIX, limit=1, cursor=cursor, newest_first=newest_first)
            found += page.entries
            cursor = page.cursor
            if cursor is None:
                break
            cursor.encode()  # can go to a client
        expected = [PREFIX + name for name in ("\0d", "a", "z")]
        assert [entry.key for entry in found] == (expected[::-1] if newest_first else expected)
    watch = store.watch(PREFIX, after=before)
    seen: list[str] = []
    while not seen or seen[-1] != PREFIX + "z":
        seen += [event.key for event in await anext(watch)]
    assert seen == [PREFIX + "\0d", PREFIX + "z"]
    await watch.aclose()
    await store.close()


@pytest.mark.parametrize("name", ["a", "a:b", "b\udcff", "\0d", "\0\0"])
def test_odd_keys_cursor_names_any_key(name: str) -> None:
    cursor = write_cursor(7, PREFIX, PREFIX + name)
    cursor.encode()
    assert read_cursor(cursor, PREFIX) == (7, PREFIX + name)
