"""Rounds on a three-member etcd, where each node has its own certificate and only a member's rights."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from mao_shared import keys
from mao_shared.errors import Forbidden
from mao_shared.models import Announcement
from mao_shared.store import Records, open_store
from mao_shared.store.protocol import Write
from mao_shared.store.records import dump
from tests.datamgmt.world import writes
from tests.support.federation_etcd import ADMIN, FederationEtcd, TlsEtcd, federation_etcd

from .federation import NODES, Federation, federation
from .test_decide import X, said
from .test_killed import kind_of

pytestmark = pytest.mark.etcd


@asynccontextmanager
async def secure(root: Path, etcd: FederationEtcd) -> AsyncIterator[Federation]:
    async with AsyncExitStack() as stack:
        admin = open_store(etcd.endpoints, tls=etcd.files(ADMIN))
        stack.push_async_callback(admin.close)
        ways = {name: open_store(etcd.endpoints, tls=await etcd.join(name)) for name in NODES}
        for way in ways.values():
            stack.push_async_callback(way.close)
        yield await stack.enter_async_context(federation(root, admin, ways=ways))


async def leader_of(etcd: FederationEtcd) -> TlsEtcd:
    admin = etcd.admin()
    try:
        health = [await admin.health(member.client) for member in etcd.members]
    finally:
        await admin.close()
    return next(member for member, seen in zip(etcd.members, health, strict=True) if seen.leader)


class _Killer:
    """Kill an etcd member as soon as a write of this kind was made."""

    def __init__(self, member: TlsEtcd, kind: str) -> None:
        self._member, self._kind, self.killed = member, kind, False

    def strike(self, written: Sequence[Write]) -> None:
        if not self.killed and any(kind_of(write) == self._kind for write in written):
            self.killed = True
            self._member.kill()


@pytest.mark.parametrize("kind", ["opened", "closed", "agreed"])
async def test_secure_node_killed_during_round(tmp_path: Path, kind: str) -> None:
    with federation_etcd(3) as etcd:
        async with secure(tmp_path, etcd) as fed:
            await fed.collect(0, [writes(a="0")] * 3)
            await fed.ended(0)
            killer = _Killer(await leader_of(etcd), kind)
            for node in fed.nodes:
                node.link.after = killer.strike
            await fed.collect(1, [writes(a="1")] * 3)
            assert (await fed.ended(1)).phase == "decided"
            assert killer.killed
            rounds = await fed.rounds()
            assert fed.truth() == [round_.id for round_ in reversed(rounds)]
            assert not any(round_.flagged for round_ in rounds)


async def test_secure_no_write_under_other_prefix(tmp_path: Path) -> None:
    with federation_etcd() as etcd:
        async with secure(tmp_path, etcd) as fed:
            lie: Announcement = said("node-a", X).record
            prefix = f"{keys.peer_root('node-a')}announcements/"
            liar = Records(fed["c"].link, prefix, Announcement)
            with pytest.raises(Forbidden, match="node-c"):
                await liar.create(f"{lie.dataset}/{lie.round}", lie)
            with pytest.raises(Forbidden):
                await fed["c"].link.create(keys.attestation("node-b", "data", lie.round), dump(lie))
            await asyncio.wait_for(fed.collect(0, [writes(a="0")] * 3), 60)
            assert (await fed.ended(0)).phase == "decided"
