"""Changes by other members are pending until the operator approves them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing
from typing import Any

import httpx
import pytest

from mao_registry.consent.definition import Document, definition_id, describe_changes, unified_diff
from mao_registry.records.endorsements import record_digest
from mao_registry.registry import Registry
from mao_shared import keys
from mao_shared.models import Dataset, Endorsement, Enrolment, Pipeline, Step, Tool
from mao_shared.store import Stored
from mao_shared.store.memory import MemoryStore
from mao_shared.store.records import dump
from tests.registry.conftest import running, serving
from tests.registry.doubles import WillingServices
from tests.registry.seed import INIT, TOOL, register

EVIL = {**TOOL, "image": "evil:1"}
CHARTS = {"name": "charts", "master": "/srv/git/evil.git"}
STEPS = [Step(tool="crawler", dataset="charts")]
NOW = "2026-01-01T00:00:00Z"


class World:
    """A node, its operator's calls, a second member of the federation, and the calls to its services."""

    def __init__(
        self, own: httpx.AsyncClient, registry: Registry, other: httpx.AsyncClient, services: WillingServices
    ) -> None:
        self.own, self.registry, self.other, self.services = own, registry, other, services
        self.shared = registry.repositories.federation

    async def write(self, kind: Any, record: Any) -> None:
        """Write directly to the store, as a member with an etcd client can."""
        key = keys.registry(kind, record.name)
        entry = await self.shared.get(key)
        assert entry is not None
        assert await self.shared.replace(key, dump(record), entry.revision)

    async def diff(self) -> dict[str, Any]:
        answer = await self.own.get("/pipeline/crawler/diff")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def approve(self, definition: str, **more: Any) -> httpx.Response:
        return await self.own.post("/pipeline/crawler/approve", json={"definition": definition, **more})

    async def runs(self) -> dict[str, Any]:
        """Return the step that would run now."""
        return dict((await self.own.get("/enrolments/crawler")).json()["steps"][0])


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """`node-1` is enrolled in `crawler`; `node-2` is another member of the same federation."""
    async with AsyncExitStack() as stack:
        shared, services = MemoryStore(), WillingServices()
        here = running(MemoryStore(), services, federation=shared)
        own, registry = await stack.enter_async_context(here)
        apart = serving(MemoryStore(), WillingServices(), node="node-2", federation=shared)
        other = await stack.enter_async_context(apart)
        await register(own)
        assert (await own.post("/pipeline/init", json=INIT)).status_code == 201
        yield World(own, registry, other, services)


async def test_diff_of_unchanged_pipeline_is_empty(world: World) -> None:
    found = await world.diff()
    assert (found["pending"], found["diff"], found["endorsed"]) == ([], "", {})
    [state] = (await world.own.get("/pipeline")).json()["items"]
    assert (state["outdated"], state["pending"]) == (False, [])
    assert state["enrolment"]["approved_by"] == "operator"


async def test_diff_reports_rebuilt_image(world: World) -> None:
    world.services.build = "b"
    found = await world.diff()
    assert (found["pending"], found["diff"]) == ([], "")
    pinned = f"{TOOL['image']}@sha256:{'a' * 64}"
    assert found["rebuilt"] == {TOOL["image"]: {"pinned": pinned, "here": pinned.replace("a" * 64, "b" * 64)}}
    assert world.services.images[-1] == (TOOL["image"], "never")


@pytest.mark.parametrize(
    ("kind", "record", "word"),
    [
        ("tools", Tool(**EVIL), 'step crawler: image: "busybox:1.36" → "evil:1"'),
        (
            "tools",
            Tool(**{**TOOL, "command": ["rm", "-rf"]}),
            'step crawler: command: nothing → ["rm", "-rf"]',
        ),
        ("tools", Tool(**{**TOOL, "env": {"PATH": "/evil"}}), 'step crawler: env.PATH: nothing → "/evil"'),
        ("tools", Tool(**{**TOOL, "limits": {"time": 9}}), "step crawler: limits.time: 3600.0 → 9.0"),
        (
            "tools",
            Tool(**{**TOOL, "privileges": {"new_privileges": True}}),
            "step crawler: privileges.new_privileges: false → true",
        ),
        (
            "datasets",
            Dataset(**CHARTS),
            'step crawler: output.master: "/srv/git/charts.git" → "/srv/git/evil.git"',
        ),
        (
            "datasets",
            Dataset(name="charts", master="/srv/git/charts.git", lfs_above=1),
            "step crawler: output.lfs_above: nothing → 1",
        ),
        (
            "pipelines",
            Pipeline(name="crawler", steps=STEPS, overlap="replace"),
            'overlap: "skip" → "replace"',
        ),
    ],
)
async def test_enrolment_unchanged_while_change_is_pending(
    world: World, kind: str, record: Any, word: str
) -> None:
    before = await world.runs()
    await world.write(kind, record)

    [state] = (await world.own.get("/pipeline")).json()["items"]
    assert (state["outdated"], state["pending"]) == (True, [word])
    found = await world.diff()
    assert found["pending"] == [word]
    assert [line for line in found["diff"].splitlines() if line.startswith("+") and line[1] != "+"]
    assert await world.runs() == before
    assert world.services.pinned() == ["busybox:1.36"]


async def test_approve_rejects_changed_definition(world: World) -> None:
    await world.write("tools", Tool(**{**TOOL, "image": "crawler:2"}))
    shown = await world.diff()
    await world.write("tools", Tool(**EVIL))

    refused = await world.approve(shown["definition"])
    assert (refused.status_code, refused.json()["code"]) == (412, "definition-changed")
    assert "maoctl pipeline diff crawler" in refused.json()["next"]
    assert (await world.runs())["image"]["name"] == "busybox:1.36"

    approved = await world.approve((await world.diff())["definition"])
    assert (approved.status_code, approved.json()["approved_by"]) == (200, "operator")
    assert (await world.runs())["image"]["name"] == "evil:1"
    assert (await world.diff())["pending"] == []


async def test_approve_keeps_pins_of_unchanged_images(world: World) -> None:
    await world.write("tools", Tool(**{**TOOL, "env": {"DEPTH": "3"}}))
    approved = await world.approve((await world.diff())["definition"])
    assert approved.json()["steps"][0]["env"] == {"DEPTH": "3"}
    assert world.services.pinned() == ["busybox:1.36"]  # at the enrolment, not again


async def test_approve_requires_agreement_to_new_privileges(world: World) -> None:
    await world.write("tools", Tool(**{**TOOL, "privileges": {"user": "root"}}))
    shown = await world.diff()
    assert shown["agree"] == ["user root"]
    refused = await world.approve(shown["definition"])
    assert (refused.status_code, refused.json()["code"]) == (422, "agreement-needed")
    approved = await world.approve(shown["definition"], agree=["user root"])
    assert (approved.status_code, approved.json()["agreed"]) == (200, ["user root"])


async def _changed_by_node_2(world: World, **changes: Any) -> None:
    answer = await world.other.put("/registry/tools/crawler", json={**TOOL, **changes})
    assert answer.status_code == 200, answer.text


async def _until_image(world: World, image: str) -> Enrolment:
    records = world.registry.repositories.enrolments
    async with asyncio.timeout(30), aclosing(records.store.watch(records.prefix, after=0)) as batches:
        async for batch in batches:
            for entry in (event.entry for event in batch if event.entry):
                found = records.parse(entry).record
                if found.steps[0].image.name == image:
                    return found
    raise AssertionError("a watch has no end")


async def test_trust_auto_approves_endorsed_change(world: World) -> None:
    await _changed_by_node_2(world, image="crawler:2")
    assert (await world.diff())["endorsed"] == {}  # no node is trusted yet
    assert (await world.own.put("/trusted/node-2")).status_code == 200
    enrolment = await _until_image(world, "crawler:2")
    assert enrolment.approved_by == "trusted:node-2"
    listed = (await world.own.get("/trusted")).json()["items"]
    assert [trust["node"] for trust in listed] == ["node-2"]

    await _changed_by_node_2(world, image="crawler:3")  # found by the watch this time
    await _until_image(world, "crawler:3")

    assert (await world.own.delete("/trusted/node-2")).status_code == 204
    assert (await world.own.delete("/trusted/node-2")).json()["code"] == "not-trusted"


async def test_trust_continues_after_failing_pipeline(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.own.put("/trusted/node-2")
    steps = {"name": "another", "steps": [{"tool": "crawler", "dataset": "charts"}]}
    assert (await world.own.post("/pipeline/init", json=steps)).status_code == 201
    take_over = world.registry.approvals.auto_approve

    async def breaks(name: str) -> Stored[Enrolment]:
        if name == "another":
            raise RuntimeError("of a kind that nobody thought of")
        return await take_over(name)

    monkeypatch.setattr(world.registry.approvals, "auto_approve", breaks)
    await _changed_by_node_2(world, image="crawler:2")
    assert (await _until_image(world, "crawler:2")).pipeline == "crawler"


async def test_trust_requires_endorsement_of_every_change(world: World) -> None:
    """An untrusted node moves the dataset while a trusted node changes the tool."""
    await world.own.put("/trusted/node-2")
    await world.write("datasets", Dataset(**CHARTS))
    await _changed_by_node_2(world, image="crawler:2")
    await _stays(world, "No trusted node endorses what changed in 'crawler': datasets/charts.")


async def test_endorsement_ignores_dataset_nodes(world: World) -> None:
    """A trusted node enrols in a dataset that an untrusted one has moved."""
    await world.own.put("/trusted/node-2")
    await world.write("datasets", Dataset(**CHARTS))
    assert (await world.other.put("/enrolments/crawler", json={})).status_code == 201
    assert (await world.own.get("/registry/datasets/charts")).json()["nodes"] == ["node-2"]
    await _stays(world, "datasets/charts")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"privileges": {"capabilities": ["NET_RAW"]}}, "tool crawler asks for capability NET_RAW"),
        ({"network": "host"}, "tool crawler asks for host network"),
        ({"privileges": {"new_privileges": True}}, "tool crawler asks for new privileges"),
    ],
)
async def test_trust_excludes_new_privileges(world: World, changes: dict[str, Any], why: str) -> None:
    await world.own.put("/trusted/node-2")
    await _changed_by_node_2(world, **changes)
    await _stays(world, why)


@pytest.mark.parametrize("by_tool", [True, False])
@pytest.mark.parametrize("change", ["image", "command", "env", "step"])
async def test_trust_excludes_docker_socket_changes(world: World, change: str, by_tool: bool) -> None:
    """The operator has granted the engine's socket to the tool, and another program would run with it."""
    tool = {**TOOL, "privileges": {"docker_socket": True}} if by_tool else TOOL
    steps: list[dict[str, Any]] = [{"tool": "crawler", "dataset": "charts", "docker_socket": not by_tool}]
    await world.write("tools", Tool(**tool))
    await world.write("pipelines", Pipeline(name="crawler", steps=steps))
    agreed = await world.approve((await world.diff())["definition"], agree=["docker socket"])
    assert agreed.status_code == 200, agreed.text
    await world.own.put("/trusted/node-2")
    if change == "image":
        await _changed_by_node_2(world, **tool | EVIL)
    else:
        more = {"command": ["evil"]} if change in ("command", "step") else {"env": {"DO": "evil"}}
        changed = {**steps[0], **more}
        steps = [steps[0], changed | {"name": "another"}] if change == "step" else [changed]
        answer = await world.other.put(
            "/registry/pipelines/crawler", json={"name": "crawler", "steps": steps}
        )
        assert answer.status_code == 200, answer.text
    await _stays(world, "tool crawler asks for docker socket, to run something else with it")


def _under_its_own_name(record: Tool) -> tuple[str, bytes]:
    return keys.endorsement("node-3", "tools", record.name), _endorsement(record_digest(record))


def _of_another_record(record: Tool) -> tuple[str, bytes]:
    old = record.model_copy(update={"image": "crawler:old"})
    return keys.endorsement("node-2", "tools", record.name), _endorsement(record_digest(old))


def _garbage(record: Tool) -> tuple[str, bytes]:
    return keys.endorsement("node-2", "tools", record.name), b'{"digest": ["' + b"x" * 200_000 + b'"]}'


def _endorsement(digest: str) -> bytes:
    return dump(Endorsement.model_validate({"digest": digest, "endorsed_at": NOW}))


@pytest.mark.parametrize("forge", [_under_its_own_name, _of_another_record, _garbage])
async def test_endorsement_of_other_content_is_ignored(
    world: World, forge: Callable[[Tool], tuple[str, bytes]]
) -> None:
    """Etcd's roles keep others from the prefix; the content is checked here."""
    await world.own.put("/trusted/node-2")
    record = Tool(**{**EVIL, "author": "node-2"})
    key, value = forge(record)
    await world.shared.create(key, value)
    await world.write("tools", record)
    await _stays(world, "No trusted node endorses what changed in 'crawler': tools/crawler.")


async def _stays(world: World, why: str) -> None:
    """The controller approves nothing, logs why, and what runs is unchanged."""
    before = await world.runs()
    await world.registry.trust.reconcile()
    assert why in world.registry.trust._logged["crawler"]
    assert await world.runs() == before


async def test_diff_truncates_huge_records(world: World) -> None:
    command = [f"--option-{number}" for number in range(1000)]
    await world.write("tools", Tool(**{**TOOL, "command": [*command[:-1], "\x1b]0;evil\x07" * 3000]}))
    found = await world.diff()
    assert len(found["diff"]) < 250_000
    assert "\x1b" not in found["diff"]
    assert all(len(word) < 500 for word in found["pending"])


async def test_states_report_deleted_tool(world: World) -> None:
    await world.shared.delete(keys.registry("tools", "crawler"))
    [state] = (await world.own.get("/pipeline")).json()["items"]
    assert state["pending"] == ["There is no tool 'crawler', which the pipeline refers to."]
    assert (await world.own.get("/pipeline/crawler/diff")).json()["code"] == "unknown-tool"


async def test_diff_before_enrolment(world: World) -> None:
    found = (await world.other.get("/pipeline/crawler/diff")).json()
    assert (found["enrolled"], found["pending"]) == (False, [])
    assert "+    image: busybox:1.36" in found["diff"].splitlines()
    approved = await world.other.post("/pipeline/crawler/approve", json={"definition": found["definition"]})
    assert approved.status_code == 200
    unknown = await world.own.get("/pipeline/nothing/diff")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "not-found")


async def test_trust_of_older_enrolment_requires_all_endorsed(world: World) -> None:
    """It has no digests of its records, so everything counts as changed."""
    await world.own.put("/trusted/node-2")
    stored = await world.registry.repositories.enrolments.get("crawler")
    assert stored is not None
    old = json.loads(dump(stored.record))
    del old["records"], old["approved_by"]
    key = keys.enrolment("node-1", "crawler")
    assert await world.registry.repositories.own.replace(key, json.dumps(old).encode(), stored.revision)
    await _changed_by_node_2(world, image="crawler:2")
    await _stays(world, "datasets/charts, pipelines/crawler")


def test_diff_describes_network_reach() -> None:
    def document(network: str) -> Document:
        return {"overlap": "skip", "steps": {"t": {"image": "lab/x:1", "network": network}}}

    new = unified_diff({"overlap": None, "steps": {}}, document("bridge"), was="/dev/null", will_be="p")
    assert "not this host, other tools or link-local" in new
    (line,) = describe_changes(document("none"), document("bridge"))
    assert "none (reaches nothing)" in line
    assert "not this host" in line
    (line,) = describe_changes(document("bridge"), document("host"))
    assert "the host's own network" in line
    assert definition_id("p", document("bridge")) != definition_id("p", document("host"))
