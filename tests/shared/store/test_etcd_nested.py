"""Key permissions hold in nested transactions on the bundled etcd (CVE-2026-33343).

By nested transactions, an invited node and a member try to read and replace the authority's key, and to
overwrite and delete another node's attestations. On an etcd that is refused for federations these attacks
succeed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import grpc
import pytest
from aetcd import rpc

from mao_shared import keys
from mao_shared.clients.etcd_http import ask_version
from mao_shared.etcd_version import judge
from mao_shared.store import TlsFiles
from mao_shared.store.etcd_channel import Caller
from tests.support.etcd import unsafe_etcd, version_of
from tests.support.federation_etcd import ADMIN, FederationEtcd, TlsEtcd, federation_etcd

pytestmark = pytest.mark.etcd

SECRET, SAID = b"the authority's private key", b"what node-1 has attested"
AUTHORITY = keys.authority().encode()
ATTESTED = keys.attestation("node-1", "data", "20261129T200000Z").encode()

RANGES = {
    "authority": rpc.RangeRequest(key=AUTHORITY),
    "authorities": rpc.RangeRequest(key=b"/mao-authority/", range_end=b"/mao-authority0"),
    "everything": rpc.RangeRequest(key=b"\0", range_end=b"\0"),
    "stale": rpc.RangeRequest(key=AUTHORITY, serializable=True),
}
OPERATIONS = {
    **{f"read-{name}": rpc.RequestOp(request_range=range_) for name, range_ in RANGES.items()},
    "overwrite": rpc.RequestOp(request_put=rpc.PutRequest(key=ATTESTED, value=b"forged")),
    "overwrite-authority": rpc.RequestOp(request_put=rpc.PutRequest(key=AUTHORITY, value=b"forged")),
    "overwrite-and-read": rpc.RequestOp(request_put=rpc.PutRequest(key=AUTHORITY, value=b"", prev_kv=True)),
    "delete": rpc.RequestOp(request_delete_range=rpc.DeleteRangeRequest(key=ATTESTED)),
    "delete-and-read": rpc.RequestOp(
        request_delete_range=rpc.DeleteRangeRequest(key=AUTHORITY, range_end=b"/mao-authority0", prev_kv=True)
    ),
}
IMPOSSIBLE = rpc.Compare(key=b"/mao/none", target=rpc.Compare.VERSION, result=rpc.Compare.GREATER, version=7)
SHAPES = [
    ("success",),
    ("failure",),
    ("success", "success"),
    ("failure", "success"),
    ("success", "failure", "failure"),
]


def nested(operation: rpc.RequestOp, branches: tuple[str, ...]) -> rpc.TxnRequest:
    """Nest the operation in one transaction per branch, the outermost first."""
    for branch in reversed(branches):
        compare = [IMPOSSIBLE] if branch == "failure" else []
        request = rpc.TxnRequest(compare=compare, **{branch: [operation]})
        operation = rpc.RequestOp(request_txn=request)
    return rpc.TxnRequest(success=[operation])


def guess() -> rpc.TxnRequest:
    """Test by a comparison whether the authority's key has this value."""
    compare = rpc.Compare(key=AUTHORITY, target=rpc.Compare.VALUE, result=rpc.Compare.EQUAL, value=SECRET)
    return rpc.TxnRequest(success=[rpc.RequestOp(request_txn=rpc.TxnRequest(compare=[compare]))])


@asynccontextmanager
async def calling(federation: FederationEtcd, files: TlsFiles) -> AsyncIterator[Any]:
    caller = Caller(federation.endpoints, deadline=5.0, tls=files)
    try:
        yield caller.current
    finally:
        await caller.close()


async def fill(federation: FederationEtcd) -> None:
    """Restore the keys' initial values."""
    async with calling(federation, federation.files(ADMIN)) as core:
        for key, value in ((AUTHORITY, SECRET), (ATTESTED, SAID)):
            await core.kv.Put(rpc.PutRequest(key=key, value=value))


async def content(federation: FederationEtcd) -> dict[bytes, bytes]:
    async with calling(federation, federation.files(ADMIN)) as core:
        found = await core.kv.Range(RANGES["everything"])
        return {kv.key: kv.value for kv in found.kvs}


async def attacker(federation: FederationEtcd, who: str) -> TlsFiles:
    return await (federation.invite("node-9") if who == "invited" else federation.join("node-2"))


@pytest.fixture(scope="module")
def brought() -> Iterator[FederationEtcd]:
    with federation_etcd() as federation:
        yield federation


@pytest.fixture(scope="module")
def unsafe() -> Iterator[FederationEtcd]:
    with federation_etcd(program=unsafe_etcd()) as federation:
        yield federation


def test_etcd_of_the_tests_is_none_that_is_refused() -> None:
    version = version_of("etcd")
    assert judge(version) != "unsafe", (
        f"{version or 'no etcd'} on PATH: run scripts/machine.sh etcd, then ./dev pytest"
    )


@pytest.mark.parametrize("branches", SHAPES, ids="-".join)
@pytest.mark.parametrize("who", ["invited", "member"])
async def test_nested_transactions_are_denied(
    brought: FederationEtcd, who: str, branches: tuple[str, ...]
) -> None:
    await fill(brought)
    async with calling(brought, await attacker(brought, who)) as endpoint:
        for name, operation in OPERATIONS.items():
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await endpoint.kv.Txn(nested(operation, branches))
            assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED, name
    held = await content(brought)
    assert (held[AUTHORITY], held[ATTESTED]) == (SECRET, SAID)


@pytest.mark.parametrize("who", ["invited", "member"])
async def test_nested_comparisons_are_denied(brought: FederationEtcd, who: str) -> None:
    await fill(brought)
    async with calling(brought, await attacker(brought, who)) as endpoint:
        with pytest.raises(grpc.aio.AioRpcError, match="permission denied"):
            await endpoint.kv.Txn(guess())


async def test_nested_transactions_within_a_members_rights_are_made(brought: FederationEtcd) -> None:
    """The denials above are due to the keys, not to the nesting."""
    own = keys.attestation("node-2", "data", "20261129T200000Z").encode()
    operation = rpc.RequestOp(request_put=rpc.PutRequest(key=own, value=b"mine"))
    async with calling(brought, await brought.join("node-2")) as endpoint:
        await endpoint.kv.Txn(nested(operation, ("success", "failure")))
    assert (await content(brought))[own] == b"mine"


@pytest.mark.parametrize("branches", SHAPES, ids="-".join)
@pytest.mark.parametrize("who", ["invited", "member"])
async def test_nested_transactions_pass_on_an_etcd_that_is_refused(
    unsafe: FederationEtcd, who: str, branches: tuple[str, ...]
) -> None:
    async with calling(unsafe, await attacker(unsafe, who)) as endpoint:
        for name, operation in OPERATIONS.items():
            await fill(unsafe)
            answer = await endpoint.kv.Txn(nested(operation, branches))
            if "read" in name:
                assert SECRET in answer.SerializeToString(), name
            if not name.startswith("read"):
                held = await content(unsafe)
                assert (held.get(AUTHORITY), held.get(ATTESTED)) != (SECRET, SAID), name
        await fill(unsafe)
        assert (await endpoint.kv.Txn(guess())).responses[0].response_txn.succeeded


@pytest.mark.parametrize("who", ["invited", "member"])
async def test_etcd_open_watch_shows_nothing_of_the_authority(brought: FederationEtcd, who: str) -> None:
    """Before 3.5.33, read access to a key allows watching all later keys; the authority's sort first."""
    node = "node-9" if who == "invited" else "node-2"
    start = keys.certificate_request(node).encode()
    create = rpc.WatchCreateRequest(key=start, range_end=b"\0")
    async with calling(brought, await attacker(brought, who)) as endpoint:
        watch = endpoint.watch.Watch()
        await watch.write(rpc.WatchRequest(create_request=create))
        opened = await watch.read()
        assert opened.created or opened.canceled
        await fill(brought)
        async with calling(brought, brought.files(ADMIN)) as core:
            await core.kv.Put(rpc.PutRequest(key=start + b"-last", value=b""))
        seen: list[bytes] = []
        async with asyncio.timeout(60):
            while not opened.canceled and start + b"-last" not in seen:
                opened = await watch.read()
                seen += [event.kv.key for event in opened.events]
        watch.cancel()
    assert not [key for key in seen if key.startswith(b"/mao-authority")]


async def test_etcd_members_replaced_one_by_one_keep_data_and_gain_rights() -> None:
    """Replace members as docs/federation.md describes; the federation answers throughout."""
    with federation_etcd(3, unsafe_etcd()) as federation:
        await fill(federation)
        files = await federation.join("node-2")
        own = keys.member("node-2").encode()
        async with calling(federation, files) as endpoint:
            answer = await endpoint.kv.Txn(nested(OPERATIONS["read-authority"], ("success",)))
            assert SECRET in answer.SerializeToString()
        for count, member in enumerate(federation.members):
            member.kill()
            async with calling_others(federation, member, files) as endpoint:
                put = rpc.PutRequest(key=own, value=b"%d" % count)
                await insist(partial(endpoint.kv.Put, put))
            member.program = "etcd"
            member.restart()
            member.await_health()
        for member in federation.members:
            assert await ask_version(member.client, files) == version_of("etcd")
            caller = Caller(member.client, deadline=5.0, tls=files)
            for operation in OPERATIONS.values():
                with pytest.raises(grpc.aio.AioRpcError, match="permission denied"):
                    await caller.current.kv.Txn(nested(operation, ("success", "success")))
            await caller.close()
        held = await content(federation)
        assert (held[AUTHORITY], held[ATTESTED], held[own]) == (SECRET, SAID, b"2")


@asynccontextmanager
async def calling_others(federation: FederationEtcd, gone: TlsEtcd, files: TlsFiles) -> AsyncIterator[Any]:
    other = next(member for member in federation.members if member is not gone)
    caller = Caller(other.client, deadline=5.0, tls=files)
    try:
        yield caller.current
    finally:
        await caller.close()


async def insist(call: Callable[[], Awaitable[object]]) -> None:
    """Retry until the other members have a leader again."""
    async with asyncio.timeout(30):
        while True:
            try:
                await call()
                return
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.PERMISSION_DENIED:
                    raise
