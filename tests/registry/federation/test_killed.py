"""A registry that is killed after each write of a command: repeating the command completes it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from mao_registry.federation import departure
from mao_registry.federation.context import FederationContext
from mao_registry.federation.controller import FederationController
from mao_registry.federation.create import CreateCommand
from mao_registry.federation.departure import LeaveCommand
from mao_registry.federation.etcd_versions import EtcdVersions
from mao_registry.federation.join import JoinCommand
from mao_shared.conditions import Conditions
from mao_shared.errors import MaoError
from mao_shared.federation.resolver import FederationFiles
from mao_shared.store import Store, open_admin, open_store
from mao_shared.store.endpoints import TlsFiles
from tests.registry.doubles import Killed

from .nodes import Node, join, running

pytestmark = pytest.mark.etcd

WRITES = frozenset({"create", "replace", "delete", "transact"})
COMMANDS = frozenset(
    {"ensure_role", "ensure_user", "delete_role", "delete_user", "set_roles", "enable_auth", "add_learner"}
    | {"promote", "remove", "move_leader"}
)
MOST_LIVES = 80


class Mortal:
    """Forward calls; kill the caller after one of `deadly`, once for each distinct call."""

    def __init__(self, inner: Any, deadly: frozenset[str], survived: set[str]) -> None:
        self._inner = inner
        self._deadly = deadly
        self._survived = survived

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)
        if name not in self._deadly:
            return method

        async def call(*args: Any, **options: Any) -> Any:
            answer = await method(*args, **options)
            die_once(self._survived, f"{name} {args}")
            return answer

        return call


def die_once(survived: set[str], what: str) -> None:
    if what not in survived:
        survived.add(what)
        raise Killed


def mortal(node: Node) -> FederationContext:
    """Return a context that kills the caller at every write, the first time it is made."""
    survived: set[str] = set()

    def store(endpoints: str, tls: TlsFiles) -> Store:
        return cast(Store, Mortal(open_store(endpoints, tls=tls), WRITES, survived))

    context = node.context
    return FederationContext(
        node=context.node,
        own=cast(Store, Mortal(context.own, WRITES, survived)),
        files=context.files,
        address=context.address,
        clock=context.clock,
        notify_supervisor=context.notify_supervisor,
        open_store=store,
        open_admin=lambda endpoints, tls: cast(Any, Mortal(open_admin(endpoints, tls), COMMANDS, survived)),
    )


@contextlib.contextmanager
def deadly_files(node: Node) -> Iterator[None]:
    """Files of the node's federation are written, and then their writer is killed."""
    write, survived = FederationFiles.write, set[str]()

    def last_words(self: FederationFiles, path: Path, content: str | bytes) -> None:
        write(self, path, content)
        if path.is_relative_to(node.files.directory):
            die_once(survived, f"{path} {content!r}")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FederationFiles, "write", last_words)
        yield


async def lives_of(command: Callable[[], Awaitable[Any]]) -> int:
    """Return how often the command was killed before it completed."""
    for lives in range(MOST_LIVES):
        try:
            await command()
        except Killed:
            continue
        return lives
    raise AssertionError("it never completes")


async def test_create_killed_at_any_step_completes(tmp_path: Path) -> None:
    async with running(tmp_path, "a") as (a,):
        await a.add_tool("crawler")
        await a.add_dataset("data", "a")
        context = mortal(a)
        with deadly_files(a):
            assert (
                await lives_of(
                    lambda: CreateCommand(context, EtcdVersions(context, Conditions())).create("lab")
                )
                > 15
            )
        await a.until_switched()
        assert await a.tools() == ["crawler"]
        assert (await a.lifecycle.state()).cores == ["a"]
        assert not a.files.draft.exists()


async def test_join_killed_at_any_step_completes(tmp_path: Path) -> None:
    async with running(tmp_path, "a", "b") as (a, b):
        await a.lifecycle.create("lab")
        await b.add_tool("scanner")
        await b.add_dataset("data", "b")
        token = (await a.lifecycle.invite("b", 3600)).token
        context = mortal(b)
        with deadly_files(b):
            assert (
                await lives_of(lambda: JoinCommand(context, EtcdVersions(context, Conditions())).join(token))
                > 6
            )
        await a.until_joined("b")
        assert await a.tools() == ["scanner"]
        assert await a.nodes_of("data") == ["b"]


async def test_leave_killed_at_any_step_completes(tmp_path: Path) -> None:
    async with running(tmp_path, "a", "b") as (a, b):
        await a.add_tool("crawler")
        await b.add_dataset("data", "b")
        await a.lifecycle.create("lab")
        await join(a, b)
        leaving = LeaveCommand(mortal(b), b.federation.replica)
        assert await lives_of(lambda: leaving.leave(force=False)) > 3
        await b.until_alone()
        assert await b.tools() == ["crawler"]
        await a.until(lambda: has_state(a, "b", "removed"))


async def test_remove_killed_at_any_step_completes(tmp_path: Path) -> None:
    async with running(tmp_path, "a", "b") as (a, b):
        await b.add_dataset("data", "b")
        await a.lifecycle.create("lab")
        await join(a, b)
        await a.lifecycle.promote("b")
        context = mortal(a)
        assert await lives_of(lambda: departure.remove(context, "b")) > 6
        assert [node.node for node in await a.lifecycle.nodes()] == ["a"]
        assert await a.nodes_of("data") == []


async def test_controller_killed_at_any_step_completes(tmp_path: Path) -> None:
    """Every run of both controllers ends with its first write."""
    a, b = Node("a", tmp_path), Node("b", tmp_path)
    await a.start(controller=False)
    await b.start(controller=False)
    try:
        await a.lifecycle.create("lab")
        token = (await a.lifecycle.invite("b", 3600)).token
        dying = [
            FederationController(mortal(node), node.federation, node.lifecycle.versions) for node in (a, b)
        ]
        async with asyncio.TaskGroup() as group:
            working = group.create_task(keep_looking(dying))
            await b.lifecycle.join(token)
            await a.until_joined("b")
            await a.lifecycle.promote("b")
            await a.until(lambda: votes(a, "b"))
            await a.lifecycle.demote("b")
            await b.until(lambda: is_client(b))
            working.cancel()
    finally:
        await b.stop()
        await a.stop()


async def keep_looking(controllers: list[FederationController]) -> None:
    while True:
        for controller in controllers:
            with contextlib.suppress(Killed, MaoError):
                await controller.reconcile()
        await asyncio.sleep(0.02)


async def has_state(node: Node, of: str, state: str) -> bool:
    identity = await node.identity(of)
    return identity is not None and identity.state == state


async def votes(node: Node, of: str) -> bool:
    return of in (await node.lifecycle.state()).cores


async def is_client(node: Node) -> bool:
    return (await node.context.link()).role == "client" and not node.files.etcd_config.exists()
