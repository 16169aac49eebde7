"""A federation with real etcds: create, join, promote, demote, remove, leave."""

from __future__ import annotations

import asyncio
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from mao_registry.federation import controller, pki
from mao_registry.federation.context import FederationContext, FederationRecords
from mao_registry.federation.cores import sign_request
from mao_shared import keys
from mao_shared.errors import (
    Conflict,
    FederationUnavailable,
    Forbidden,
    InvalidInput,
    MaoError,
    NodeRemoved,
    Unauthorized,
)
from mao_shared.models import CertificateRequest, Participation
from mao_shared.reconcile import Backoff
from mao_shared.store import Store, open_store
from mao_shared.store.endpoints import TlsFiles
from mao_shared.store.records import dump

from .crafted import crafted
from .nodes import Node, copying, join, running

pytestmark = pytest.mark.etcd


async def test_join_publishes_records_and_switches_stores(tmp_path: Path) -> None:
    async with running(tmp_path, "a", "b") as (a, b):
        await a.add_tool("crawler")
        await a.add_dataset("data", "a")
        await b.add_tool("scanner")
        await b.add_dataset("data", "b")
        state = await a.lifecycle.create("lab")
        assert (state.name, state.role, state.cores) == ("lab", "core", ["a"])
        joined = await join(a, b)
        assert joined.published == ["tool scanner"]
        for node in (a, b):
            await node.until_switched()
            assert await node.tools() == ["crawler", "scanner"]
            assert await node.nodes_of("data") == ["a", "b"]
        listed = {node.node: (node.state, node.seat, node.healthy) for node in await b.lifecycle.nodes()}
        assert listed == {"a": ("joined", "voter", True), "b": ("joined", None, None)}


async def test_join_with_name_clashes_writes_nothing(tmp_path: Path) -> None:
    async with running(tmp_path, "a", "b") as (a, b):
        await a.add_tool("crawler")
        await b.add_tool("crawler", "lab/other:2")
        await b.add_tool("scanner")
        await a.lifecycle.create("lab")
        await a.until_switched()
        invitation = await a.lifecycle.invite("b", 3600)
        before = await _requests(a)
        with pytest.raises(Conflict, match="tool crawler") as caught:
            await b.lifecycle.join(invitation.token)
        assert caught.value.code == "names-clash"
        assert "maoctl tool remove crawler --yes ; then join again" in str(caught.value.next)
        assert await a.tools() == ["crawler"]
        assert await _requests(a) == before == []
        assert b.federation.is_own


async def _requests(node: Node) -> list[str]:
    return [stored.record.node for stored in await FederationRecords(node.federation).requests.all()]


async def test_invitation_is_for_one_node_once(tmp_path: Path) -> None:
    async with running(tmp_path, "a", "b", "c") as (a, b, c):
        await a.lifecycle.create("lab")
        invitation = await a.lifecycle.invite("b", 3600)
        with pytest.raises(InvalidInput) as caught:
            await c.lifecycle.join(invitation.token)
        assert caught.value.code == "token-other-node"
        newer = await a.lifecycle.invite("b", 3600)
        with pytest.raises(InvalidInput, match="used or withdrawn") as withdrawn:
            await b.lifecycle.join(invitation.token)
        assert "maoctl federation invite b" in str(withdrawn.value.next)
        await b.lifecycle.join(newer.token)
        await a.until_joined("b")
        thief = Node("b", tmp_path / "thief")
        with pytest.raises(InvalidInput, match="used or withdrawn"):
            await thief.lifecycle.join(newer.token)
        with pytest.raises(Conflict) as refused:
            await a.lifecycle.invite("b", 3600)
        assert refused.value.code == "node-joined"


async def test_client_has_no_core_rights(tmp_path: Path) -> None:
    async with running(tmp_path, "a", "b") as (a, b):
        await a.lifecycle.create("lab")
        await join(a, b)
        for key in (keys.member("a"), keys.identity("b"), keys.core("b"), keys.signer("a"), "/mao/else"):
            with pytest.raises(Forbidden):
                await b.federation.create(key, b"{}")
        with pytest.raises(Forbidden):
            await b.federation.get(keys.authority())
        for command in (b.lifecycle.invite("c", 3600), b.lifecycle.promote("b"), b.lifecycle.remove("a")):
            with pytest.raises(MaoError) as caught:
                await command
            assert caught.value.code in ("not-core", "node-is-this-one")


async def test_invite_rejects_too_long_name(
    tmp_path: Path,
) -> None:
    async with running(tmp_path, "a") as (a,):
        await a.lifecycle.create("lab")
        await a.until_switched()
        with pytest.raises(InvalidInput, match=r"1 characters too long") as refused:
            await a.lifecycle.invite("n" * 58, 3600)
        assert refused.value.code == "node-name-too-long"
        assert "at most 57 characters" in (refused.value.next or "")
        assert await a.identity("n" * 58) is None
        assert (await a.lifecycle.invite("n" * 57, 3600)).token


async def test_certificate_request_for_other_node_is_dropped(tmp_path: Path) -> None:
    """Neither for that of a core node, which may read the authority's key, nor for another's removal."""
    async with running(tmp_path, "a", "b", "c") as (a, b, c):
        await a.lifecycle.create("lab")
        await join(a, b)
        await join(a, c)
        before = await a.identity("a")
        requests = FederationRecords(b.federation).requests
        request = pki.make_request(pki.make_key(), "a@1")
        forged = CertificateRequest(node="a", request=request, requested_at=b.context.now)
        for lie in (forged, forged.model_copy(update={"node": "c", "leaving": True})):
            there = await requests.get("b")
            await requests.replace("b", lie, there.revision if there else 0)
            await a.lifecycle.controller.reconcile()
        assert await a.identity("a") == before
        left = await a.identity("c")
        assert left is not None
        assert left.state == "joined"


async def test_controller_skips_unreadable_records(tmp_path: Path) -> None:
    async with running(tmp_path, "a", "b", "c") as (a, b, c):
        await a.lifecycle.create("lab")
        await join(a, b)
        await b.federation.delete(keys.certificate_request("b"))
        await b.federation.create(keys.certificate_request("b"), b"{")
        await b.federation.create(keys.registry("datasets", "broken"), b"{")
        await join(a, c)
        await a.lifecycle.remove("b")
        assert [node.node for node in await a.lifecycle.nodes()] == ["a", "c"]


async def test_controller_drops_crafted_request(tmp_path: Path) -> None:
    async with running(tmp_path, "a", "b", "c") as (a, b, c):
        await a.lifecycle.create("lab")
        await join(a, b)
        for odd in crafted("b@1").values():
            await _ask(b, odd)
            await a.until(lambda: _is_gone(a, "b"))
        await join(a, c)


async def test_controller_continues_after_failing_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def sign_all_but_b(
        context: FederationContext, store: Store, admin: Any, identity: Any, request: Any
    ) -> None:
        if identity.record.node == "b":
            raise RuntimeError("of a kind that nobody thought of")
        await sign_request(context, store, admin, identity, request)

    monkeypatch.setattr(controller, "sign_request", sign_all_but_b)
    async with running(tmp_path, "a", "b", "c") as (a, b, c):
        await a.lifecycle.create("lab")
        invitation = await a.lifecycle.invite("b", 3600)
        joining = asyncio.create_task(b.lifecycle.join(invitation.token))
        await join(a, c)
        monkeypatch.undo()
        await a.lifecycle.controller.reconcile()
        await joining


async def _ask(node: Node, request: str) -> None:
    asked = CertificateRequest(node=node.name, request=request, requested_at=node.context.now)
    await FederationRecords(node.federation).requests.create_or_update(node.name, lambda _: asked)


async def _is_gone(node: Node, asked_by: str) -> bool:
    return await FederationRecords(node.federation).requests.get(asked_by) is None


async def test_remove_revokes_access_and_participation(tmp_path: Path) -> None:
    async with running(tmp_path, "a", "b") as (a, b):
        await a.add_dataset("data", "a")
        await b.add_dataset("data", "b")
        await a.lifecycle.create("lab")
        await join(a, b)
        part = dump(Participation(dataset="data", since=datetime.now(UTC)))
        await b.federation.create(keys.part("b", "data"), part)
        with pytest.raises(Forbidden):
            await b.federation.create(keys.part("a", "data"), part)
        old = TlsFiles(ca=b.files.ca, certificate=b.files.identity, key=b.files.identity)
        await a.lifecycle.remove("b")
        assert await a.federation.get(keys.part("b", "data")) is None
        store = open_store(a.address.client, tls=old)
        with pytest.raises(Unauthorized):
            await store.get(keys.federation())
        await store.close()
        assert await a.nodes_of("data") == ["a"]
        assert [node.node for node in await a.lifecycle.nodes()] == ["a"]
        await a.lifecycle.remove("b")  # again: nothing happens
        fresh = (await a.lifecycle.invite("b", 3600)).token
        for command in (b.lifecycle.join(fresh), b.lifecycle.invite("c", 3600), b.lifecycle.promote("b")):
            with pytest.raises(NodeRemoved, match="removed from 'lab'") as refused:
                await command
            assert "'maoctl federation leave', then join" in str(refused.value.next)
        left = await b.lifecycle.leave(force=False)  # nobody is left to tell
        assert left.struck
        await join(a, b)
        assert (await a.identity("b")).user == "b@3"  # type: ignore[union-attr]


async def test_promoted_cores_survive_creator(tmp_path: Path) -> None:
    async with running(tmp_path, "a", "b", "c") as (a, b, c):
        await a.lifecycle.create("lab")
        for node in (b, c):
            await join(a, node)
            assert not (await a.lifecycle.promote(node.name)).learner
        await a.stop()
        await b.until(lambda: b.add_tool_once("crawler"))
        assert await c.tools() == ["crawler"]
        with pytest.raises(Conflict) as caught:
            await b.lifecycle.demote("c")
        assert caught.value.code == "quorum-at-risk"
        await b.lifecycle.remove("a")
        assert (await b.lifecycle.demote("c")).was_core
        assert not (await b.lifecycle.demote("c")).was_core
        assert (await b.lifecycle.state()).cores == ["b"]
        with pytest.raises(Conflict) as last:
            await b.lifecycle.leave(force=False)
        assert last.value.code == "last-core"


async def test_restored_core_joins_etcd_anew(tmp_path: Path) -> None:
    """A backup has its certificates and not its etcd; under its old id it would forget what it has voted."""
    async with running(tmp_path, "a", "b", "c") as (a, b, c):
        await a.lifecycle.create("lab")
        for node in (b, c):
            await join(a, node)
            await a.lifecycle.promote(node.name)
        async with c.context.connect_admin([a.address.client]) as admin:
            [before] = [member.id for member in await admin.members() if member.name == "c"]
            await c.stop()
            await a.until(lambda: a.add_tool_once("crawler"))
            shutil.rmtree(c.files.etcd_data)
            c.files.etcd_config.unlink()
            again = Node("c", tmp_path, own=c.own, address=c.address)
            try:
                await again.start()

                async def voting() -> bool:
                    after = {member.name: member for member in await admin.members()}
                    return "c" in after and after["c"].id != before and not after["c"].learner

                await a.until(voting)
                assert [n.healthy for n in await a.lifecycle.nodes()] == [True] * 3
                await again.until_switched()
                assert await again.tools() == ["crawler"]
            finally:
                await again.stop()


async def test_restored_only_core_keeps_known_records(tmp_path: Path) -> None:
    async with running(tmp_path, "a") as (a,):
        await a.add_tool("crawler")
        await a.lifecycle.create("lab")
        await a.until_switched()
        async with copying(a):
            pass
        await a.stop()
        shutil.rmtree(a.files.etcd_data)
        a.files.etcd_config.unlink()
        again = Node("a", tmp_path, own=a.own, address=a.address)
        try:
            await again.start()
            assert await again.tools() == ["crawler"]  # as last known
            await again.lifecycle.leave(force=True)
            await again.until_alone()
            assert await again.tools() == ["crawler"]
            await again.lifecycle.create("lab")
            await again.until_switched()
            assert await again.tools() == ["crawler"]
        finally:
            await again.stop()


async def test_no_majority_names_silent_cores(tmp_path: Path) -> None:
    async with running(tmp_path, "a", "b", "c") as (a, b, c):
        await a.lifecycle.create("lab")
        for node in (b, c):
            await join(a, node)
            await a.lifecycle.promote(node.name)
        await a.until_switched()
        async with copying(a):
            await b.stop()
            await c.stop()
            silent = {"a": (False, True), "b": (False, False), "c": (False, False)}

            async def seen() -> bool:
                nodes = await a.lifecycle.nodes()
                return {node.node: (node.healthy, node.answers) for node in nodes} == silent

            await a.until(seen)
            commands = (a.lifecycle.invite("d", 3600), a.lifecycle.demote("b"), a.lifecycle.remove("c"))
            for command in commands:
                with pytest.raises(FederationUnavailable, match="no majority: b and c do not answer") as told:
                    await command
                assert "MAO_ETCD_ENDPOINTS" not in str(told.value.next)
                assert "leave --force" in str(told.value.next)


async def test_leave_copies_records(tmp_path: Path) -> None:
    async with running(tmp_path, "a", "b") as (a, b):
        await a.add_tool("crawler")
        await b.add_dataset("data", "b")
        await a.lifecycle.create("lab")
        await join(a, b)
        left = await b.lifecycle.leave(force=False)
        assert (left.federation, left.struck, left.known) == ("lab", True, True)
        await b.until_alone()
        assert await b.tools() == ["crawler"]
        assert await b.nodes_of("data") == ["b"]
        assert not b.files.identity.exists()

        async def struck() -> bool:
            identity = await a.identity("b")
            return identity is not None and identity.state == "removed"

        await a.until(struck)
        assert await a.nodes_of("data") == []
        await a.lifecycle.leave(force=False)  # the last one takes the federation with it
        await a.until_alone()
        assert not a.files.etcd_data.exists()


async def test_leave_unreachable_federation_needs_force(tmp_path: Path) -> None:
    async with running(tmp_path, "a", "b") as (a, b):
        await b.add_tool("scanner")
        await a.lifecycle.create("lab")
        await join(a, b)
        await a.stop()
        with pytest.raises(MaoError, match="cannot be reached") as caught:
            await b.lifecycle.leave(force=False)
        assert "--force" in (caught.value.next or "")
        left = await b.lifecycle.leave(force=True)
        assert not left.struck
        await b.until_alone()
        assert await b.tools() == ["scanner"]


async def test_certificate_renewal_while_running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(tmp_path, "a", "b") as (a, b):
        await a.lifecycle.create("lab")
        await join(a, b)
        before = b.files.identity.read_text()
        monkeypatch.setattr(
            "mao_registry.federation.controller.needs_renewal", lambda there, *_: there == before
        )
        await b.lifecycle.controller.reconcile()

        async def renewed() -> bool:
            await b.lifecycle.controller.reconcile()
            return b.files.identity.read_text() != before

        await b.until(renewed)
        link = await b.context.link()
        assert link.generation == 2
        assert await b.tools() == []


async def test_join_by_file_waits_for_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("mao_registry.federation.lifecycle.JOIN_BACKOFF", Backoff(0.05, 0.05))
    async with running(tmp_path, "a", "b") as (a, b):
        await a.lifecycle.create("lab")
        file = tmp_path / "token"
        joining = asyncio.create_task(b.lifecycle.join_by_file(file))
        told: list[str] = []

        async def warned() -> bool:
            told.append(capsys.readouterr().err)
            return "join-by-file" in told[-1]

        await b.until(warned)
        assert "maoctl federation invite b" in told[-1]
        file.write_text((await a.lifecycle.invite("b", 3600)).token + "\n")
        await a.until_joined("b")
        await joining
        file.write_text("ignored from now on")
        await b.lifecycle.join_by_file(file)
