"""Joining, losing and regaining a federation of real etcd members with TLS and users."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mao_shared import keys
from mao_shared.errors import Forbidden
from mao_shared.federation import FederationFiles, FederationStore
from mao_shared.federation.replicator import Replicator
from mao_shared.models import Link
from mao_shared.reconcile import background
from mao_shared.store import Store
from mao_shared.store.records import dump
from tests.support.federation_etcd import federation_etcd
from tests.support.waiting import eventually, eventually_answers

pytestmark = pytest.mark.etcd
A = keys.registry("tools", "a")


async def test_federation_member_of_a_federation_that_is_frozen_and_thawed(
    etcd_store: Store, tmp_path: Path
) -> None:
    with federation_etcd() as federation:
        tls = await federation.join("n")
        files = FederationFiles(tmp_path / "federation")
        files.write_identity(
            ca=tls.ca.read_text(), certificate=tls.certificate.read_text(), key=tls.key.read_text()
        )
        assert files.identity.stat().st_mode & 0o777 == 0o600
        store = FederationStore(etcd_store, "n", files)
        link = Link(
            federation="alps",
            id="1",
            node="n",
            user="n@1",
            endpoints=federation.endpoints.split(","),
            joined_at=datetime.now(UTC),
        )
        async with background(store.run(), Replicator(store, every=0.2).run()):
            assert await store.alone()
            await etcd_store.create(keys.link("n"), dump(link))
            await eventually(lambda: not store.is_own)
            assert await store.create(A, b"1")
            with pytest.raises(Forbidden):
                await store.create(keys.member("other"), b"x")
            assert store.reachable, "a refusal is an answer"

            async def copied() -> bool:
                contact = await store.replica.contact("1")
                return contact is not None and await store.replica.get(A) is not None

            await eventually_answers(copied)
            there = await store.get(A)
            [member] = federation.members
            member.freeze()
            await eventually(lambda: not store.reachable)
            began = time.monotonic()
            for _ in range(20):
                assert await store.get(A) == there
            assert time.monotonic() - began < 15, "each that waits for the federation takes a second"
            member.thaw()
            await eventually(lambda: store.reachable)
            assert there is not None
            assert await store.replace(A, b"2", there.revision), "the guard that was read from the copy"
        await store.close()
