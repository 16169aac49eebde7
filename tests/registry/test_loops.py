"""Every loop of the registry survives a failing item; unreadable records stop nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from mao_registry.consent.agreements import Agreements
from mao_registry.consent.trust import TrustController
from mao_registry.federation.controller import FederationController
from mao_registry.federation.lifecycle import Lifecycle
from mao_registry.federation.status import watch_quorum
from mao_registry.peers.logs import LogResponder
from mao_registry.peers.presence import LastSeenReporter, Presence
from mao_registry.peers.silent import SilentNodes
from mao_registry.records.stores import Repositories
from mao_shared import keys
from mao_shared.clock import SystemClock
from mao_shared.conditions import Conditions
from mao_shared.errors import Conflict
from mao_shared.federation.replicator import Replicator
from mao_shared.federation.resolver import FederationFiles
from mao_shared.federation.store import FederationStore
from mao_shared.models import Enrolment, Member
from mao_shared.reconcile import Backoff
from mao_shared.store import Unreadable
from mao_shared.store.memory import MemoryStore
from tests.support.loops import check_loop_survives
from tests.support.unreadable import KINDS, corrupt
from tests.support.waiting import eventually

from .conftest import NODE, running
from .doubles import RememberedFiles, WillingServices
from .seed import enrol

pytestmark = pytest.mark.virtual_time

NOW = "2026-01-01T00:00:00Z"


@pytest.fixture
def conditions() -> Conditions:
    return Conditions()


@pytest.fixture
def repositories(memory: MemoryStore, conditions: Conditions) -> Repositories:
    return Repositories(NODE, MemoryStore(), memory, Unreadable(conditions))


class Trusted:
    """Replace the agreement files: the nodes that are trusted."""

    def __init__(self, *nodes: str) -> None:
        self.nodes = set(nodes)

    async def trusted(self) -> set[str]:
        return self.nodes


def _trust_controller(
    repositories: Repositories, conditions: Conditions
) -> tuple[object, str, Any, Callable[[], object]]:
    made = TrustController(repositories, Trusted(), object(), SystemClock(), conditions)  # type: ignore[arg-type]
    return made, "reconcile", made.run, made._wake.set


def _last_seen(
    repositories: Repositories, conditions: Conditions
) -> tuple[object, str, Any, Callable[[], object]]:
    made = LastSeenReporter(repositories, SystemClock(), conditions)
    return made, "_report", made.run, lambda: None


def _presence(
    repositories: Repositories, conditions: Conditions
) -> tuple[object, str, Any, Callable[[], object]]:
    member = Member.model_validate({"name": NODE, "version": "1", "started_at": NOW})
    made = Presence(repositories, WillingServices(), member, 10, conditions=conditions)
    return made, "_update_capacity", made.run, lambda: None


def _log_responder(
    repositories: Repositories, conditions: Conditions
) -> tuple[object, str, Any, Callable[[], object]]:
    made = LogResponder(repositories, WillingServices(), shared=True, conditions=conditions)
    return repositories.federation, "list", made.run, lambda: None


def _federation_controller(
    repositories: Repositories, conditions: Conditions
) -> tuple[object, str, Any, Callable[[], object]]:
    made = FederationController(object(), repositories.federation, object(), conditions)  # type: ignore[arg-type]
    return made, "reconcile", made.run, made._wake.set


def _silent_nodes(
    repositories: Repositories, conditions: Conditions
) -> tuple[object, str, Any, Callable[[], object]]:
    made = SilentNodes(repositories, SystemClock(), 3600, conditions)
    return made, "check", made.run, lambda: None


LOOPS = {
    "silent-nodes": _silent_nodes,
    "consent": _trust_controller,
    "last-seen": _last_seen,
    "presence": _presence,
    "log-answers": _log_responder,
    "federation": _federation_controller,
}


@pytest.mark.parametrize("loop", LOOPS)
async def test_loop_continues_after_exception(
    repositories: Repositories, conditions: Conditions, monkeypatch: pytest.MonkeyPatch, loop: str
) -> None:
    monkeypatch.setattr("mao_registry.consent.trust.SETTLE_TIME", 0.01)
    monkeypatch.setattr("mao_registry.peers.silent.CHECK_PERIOD", 0.01)
    monkeypatch.setattr("mao_registry.peers.silent.FIRST_CHECK_SECONDS", 0.01)
    part, method, run, poke = LOOPS[loop](repositories, conditions)
    assert loop in await check_loop_survives(part, method, run, conditions, poke=poke)


async def test_migration_is_retried_after_exception(
    repositories: Repositories, conditions: Conditions
) -> None:
    told: list[tuple[str, str]] = []
    conditions.subscribe(lambda condition: told.append((condition.subject, condition.state)))
    calls: list[int] = []

    async def stumbles_once() -> None:
        calls.append(1)
        if len(calls) == 1:
            raise ZeroDivisionError("what nobody has thought of")

    made = Agreements(RememberedFiles(), repositories, SystemClock(), conditions)
    made._migrate = stumbles_once  # type: ignore[method-assign]
    await made.run()
    assert told == [("agreements", "degraded"), ("agreements", "ok")]


async def test_quorum_watch_continues_after_exception(conditions: Conditions) -> None:
    class Federation:
        away_since = None

        async def alone(self) -> bool:
            return True

    federation = Federation()

    def run() -> Any:
        return watch_quorum(federation, conditions)  # type: ignore[arg-type]

    assert "quorum-watch" in await check_loop_survives(federation, "alone", run, conditions)


async def test_join_by_file_continues_after_exception(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mao_registry.federation.lifecycle.JOIN_BACKOFF", Backoff(0.01, 0.01))
    looks: list[int] = []

    class Context:
        async def find_link(self) -> object:
            looks.append(1)
            if len(looks) == 1:
                raise ZeroDivisionError("what nobody has thought of")
            return object()

    lifecycle = Lifecycle.__new__(Lifecycle)
    lifecycle.context = Context()  # type: ignore[assignment]
    await lifecycle.join_by_file(tmp_path / "token")
    assert len(looks) == 2


async def test_trust_isolates_failing_pipeline(repositories: Repositories, conditions: Conditions) -> None:
    looked: list[str] = []

    class Consent:
        async def auto_approve(self, name: str) -> Any:
            looked.append(name)
            if name == "bad":
                raise KeyError(name)
            raise Conflict("Nothing is to be taken over.", code="nothing-pending")

    await repositories.own.create(keys.trusted(NODE, "n2"), b'{"node": "n2", "since": "%s"}' % NOW.encode())
    for name in ("bad", "good"):
        await enrol_by_hand(repositories, name)
    await repositories.own.create(keys.enrolment(NODE, "broken"), b"")
    trusting = TrustController(repositories, Trusted("n2"), Consent(), SystemClock(), conditions)  # type: ignore[arg-type]
    await trusting.reconcile()
    assert looked == ["bad", "good"]
    subjects = {condition.subject for condition in conditions.current()}
    assert subjects == {"consent/bad", keys.enrolment(NODE, "broken")}


@pytest.mark.parametrize("end", ["nothing-pending", "withdrawn", "trusted no more"])
async def test_trust_clears_condition(repositories: Repositories, conditions: Conditions, end: str) -> None:
    faults: list[Exception] = [KeyError("bad"), Conflict("Nothing is pending.", code="nothing-pending")]

    class Consent:
        async def auto_approve(self, name: str) -> Any:
            raise faults.pop(0)

    await repositories.own.create(keys.trusted(NODE, "n2"), b'{"node": "n2", "since": "%s"}' % NOW.encode())
    await enrol_by_hand(repositories, "bad")
    trusted = Trusted("n2")
    trusting = TrustController(repositories, trusted, Consent(), SystemClock(), conditions)  # type: ignore[arg-type]
    await trusting.reconcile()
    assert [condition.subject for condition in conditions.current()] == ["consent/bad"]
    if end == "withdrawn":
        await repositories.own.delete(keys.enrolment(NODE, "bad"))
    elif end == "trusted no more":
        trusted.nodes.clear()
    await trusting.reconcile()
    assert conditions.current() == []


async def enrol_by_hand(repositories: Repositories, name: str) -> None:
    image = {"name": "i", "pinned": "i", "platform": "p"}
    output = {"name": "d", "master": "/d", "branch": NODE}
    document = {
        "pipeline": name,
        "node": NODE,
        "steps": [{"name": "s", "tool": "t", "image": image, "output": output}],
        "pipeline_revision": 1,
        "enrolled_at": NOW,
    }
    await repositories.own.create(keys.enrolment(NODE, name), json.dumps(document).encode())


async def test_log_responder_isolates_failing_request(
    repositories: Repositories, conditions: Conditions
) -> None:
    made, answered = (
        LogResponder(repositories, WillingServices(), shared=True, conditions=conditions),
        asyncio.Event(),
    )
    plain = made._parse_request

    def stumbles(event: Any) -> Any:
        if event.key.endswith("bad"):
            raise RecursionError
        answered.set()
        return plain(event)

    made._parse_request = stumbles  # type: ignore[method-assign]
    task = asyncio.create_task(made.run())
    for number in range(1000):
        await repositories.federation.create(keys.ask("n2", f"{number}-bad"), b"{}")
        await repositories.federation.create(keys.ask("n2", f"{number}-good"), b"\xff")
        await asyncio.sleep(0)
        if answered.is_set():
            break
    await eventually(answered.is_set)
    assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    subjects = {condition.subject for condition in conditions.current()}
    assert subjects
    assert all(subject.startswith("log-answers//mao/peers/n2/asks/") for subject in subjects)


@pytest.mark.parametrize("part", ["_copy", "_report_contact"])
async def test_replica_continues_after_exception(
    conditions: Conditions, memory: MemoryStore, tmp_path: Any, part: str
) -> None:
    shared = FederationStore(memory, NODE, FederationFiles(tmp_path), fixed=MemoryStore())
    copy = Replicator(shared, every=0.05, conditions=conditions)
    subject = {"_copy": "replica/copies", "_report_contact": "replica/contact"}[part]
    assert subject in await check_loop_survives(copy, part, copy.run, conditions)
    await shared.close()


@pytest.mark.parametrize("part", ["_start", "_probe"])
async def test_federation_store_continues_after_exception(
    memory: MemoryStore, tmp_path: Any, part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shared = FederationStore(memory, NODE, FederationFiles(tmp_path), fixed=MemoryStore())
    owner: Any = shared._resolver if part == "_start" else shared
    calls, plain = 0, getattr(owner, part)

    async def stumbles() -> Any:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise ZeroDivisionError
        return await plain()

    setattr(owner, part, stumbles)
    task = asyncio.create_task(shared.run())
    await eventually(lambda: calls > 1)
    assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert "ZeroDivisionError" in capsys.readouterr().err
    await shared.close()


PLACES = {
    "tools": lambda: keys.registry("tools", "bad"),
    "datasets": lambda: keys.registry("datasets", "bad"),
    "pipelines": lambda: keys.registry("pipelines", "bad"),
    "enrolments": lambda: keys.enrolment(NODE, "bad"),
}
TWIN = {"tools": "crawler", "datasets": "charts", "pipelines": "crawler", "enrolments": "crawler"}
PATHS = {"enrolments": "/enrolments"} | {
    kind: f"/registry/{kind}" for kind in ("tools", "datasets", "pipelines")
}


async def spoil(store: MemoryStore, what: str, fault: str) -> bytes:
    """Add an unreadable record `bad` of the kind."""
    key = PLACES[what]()
    good = await store.get(key.removesuffix("bad") + TWIN[what])
    assert good is not None
    name = "pipeline" if what == "enrolments" else "name"
    bad = corrupt(good.value, fault, key_field=name)  # of another name in any case: it is a copy
    await store.create(key, bad)
    return bad


@pytest.mark.parametrize("fault", KINDS)
@pytest.mark.parametrize("what", PLACES)
async def test_unreadable_record_is_listed_and_removable(
    memory: MemoryStore, services: WillingServices, what: str, fault: str
) -> None:
    async with running(memory, services) as (api, registry):
        await enrol(api)
        await spoil(memory, what, fault)
        await _check_others(api)
        listed = await api.get(PATHS[what])
        assert listed.status_code == 200
        assert len(listed.json()["items"]) == 1
        (told,) = listed.json()["unreadable"]
        assert told["name"] == "bad"
        assert told["unreadable"]
        assert "bad" in told["next"]
        single = await api.get(f"{PATHS[what]}/bad")
        assert (single.status_code, single.json()["code"]) == (409, "record-unreadable")
        assert single.json()["next"]
        assert PLACES[what]() in [condition.subject for condition in registry.conditions.current()]
        assert (await api.delete(f"{PATHS[what]}/bad", headers={"If-Match": '"1"'})).status_code == 412
        deleted = 204 if what == "enrolments" else 200  # the original had no enrolments
        assert (await api.delete(f"{PATHS[what]}/bad")).status_code == deleted
        assert "unreadable" not in (await api.get(PATHS[what])).json()
        assert registry.conditions.current() == []


async def _check_others(api: httpx.AsyncClient) -> None:
    for path in (*PATHS.values(), "/pipeline", "/nodes", "/trusted", "/federation/nodes"):
        answer = await api.get(path)
        assert answer.status_code in (200, 404), (path, answer.text)
    states = (await api.get("/pipeline")).json()["items"]
    assert [(pipeline["name"], pipeline["enrolled"]) for pipeline in states] == [("crawler", True)]
    again = await api.put("/enrolments/crawler", json={})
    assert again.status_code == 200, again.text


async def test_states_list_unreadable_enrolment(memory: MemoryStore, services: WillingServices) -> None:
    async with running(memory, services) as (api, _):
        await enrol(api)
        entry = await memory.get(keys.enrolment(NODE, "crawler"))
        assert entry is not None
        await memory.replace(entry.key, entry.value[:-9], entry.revision)
        listed = (await api.get("/pipeline")).json()
        assert [item["name"] for item in listed["items"]] == ["crawler"]
        assert [broken["key"] for broken in listed["unreadable"]] == [entry.key]


async def test_tool_put_keeps_unknown_fields(memory: MemoryStore, services: WillingServices) -> None:
    async with running(memory, services) as (api, _):
        await enrol(api)
        key = keys.registry("tools", "crawler")
        entry = await memory.get(key)
        assert entry is not None
        newer = json.loads(entry.value) | {"newer": [None], "format": 3}
        await memory.replace(key, json.dumps(newer).encode(), entry.revision)
        shown = (await api.get("/registry/tools/crawler")).json()
        assert shown["newer"] == [None]
        refused = await api.put("/registry/tools/crawler", json=shown)
        assert refused.status_code == 422
        sent = {name: value for name, value in shown.items() if name not in ("newer", "format")}
        answer = await api.put("/registry/tools/crawler", json=sent | {"author": "another lab"})
        assert answer.status_code == 200, answer.text
        entry = await memory.get(key)
        assert entry is not None
        kept = json.loads(entry.value)
        assert (kept["newer"], kept["format"], kept["author"]) == ([None], 3, "another lab")


async def test_unreadable_enrolment_blocks_no_other(memory: MemoryStore, services: WillingServices) -> None:
    async with running(memory, services) as (api, _):
        await enrol(api)
        await memory.create(keys.enrolment(NODE, "bad"), b"{")
        body = {"tool": "crawler", "dataset": "charts", "name": "second"}
        assert (await api.post("/pipeline/init", json=body)).status_code == 201
        assert (await api.delete("/enrolments/second")).status_code == 204
    stored = await memory.get(keys.enrolment(NODE, "crawler"))
    assert stored is not None
    assert Enrolment.model_validate_json(stored.value).pipeline == "crawler"


@pytest.mark.parametrize("value", [b"{", b"", b'{"node": "other", "since": "2026-01-01T00:00:00Z"}'])
async def test_unreadable_trust_is_listed_and_removable(
    memory: MemoryStore, services: WillingServices, value: bytes
) -> None:
    async with running(memory, services) as (api, _):
        assert (await api.put("/trusted/n2")).status_code == 200
        await memory.create(keys.trusted(NODE, "n9"), value)
        listed = (await api.get("/trusted")).json()
        assert [item["node"] for item in listed["items"]] == ["n2"]
        assert [broken["name"] for broken in listed["unreadable"]] == ["n9"]
        assert (await api.delete("/trusted/n9")).status_code == 204
        assert "unreadable" not in (await api.get("/trusted")).json()
