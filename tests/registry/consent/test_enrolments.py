"""`/pipeline/init` and `/enrolments` check everything first and write in repeatable steps."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from mao_registry.node_services import NodeServices
from mao_shared import keys
from mao_shared.models import Run, Schedule
from mao_shared.store import Entry, Store
from mao_shared.store.memory import MemoryStore
from mao_shared.store.records import dump
from tests.registry.conftest import NODE, serving
from tests.registry.doubles import DyingStore, ImagelessServices, Killed, RemotelessServices, WillingServices
from tests.registry.seed import INIT, TOOL, enrol, register

PRIVILEGED = {"privileges": {"user": "root", "capabilities": ["cap_net_raw"]}, "network": "host"}
WORDS = ["capability NET_RAW", "host network", "user root"]
NOW = datetime(2026, 1, 1, tzinfo=UTC)


async def _all(store: Store) -> list[Entry]:
    """Return what the store holds, without the node's presence."""
    entries = (await store.list(keys.ROOT)).entries
    return [entry for entry in entries if not entry.key.startswith(keys.members_prefix())]


async def test_init_original_call_registers_and_enrols(
    api: httpx.AsyncClient, services: WillingServices
) -> None:
    await register(api)
    made = await api.post("/pipeline/init", json=INIT)

    assert (made.status_code, made.headers["location"]) == (201, "/registry/pipelines/crawler")
    assert made.json()["steps"][0]["dataset"] == "charts"
    assert (await api.get(made.headers["location"])).headers["etag"] == made.headers["etag"]
    assert (await api.get("/registry/datasets/charts")).json()["nodes"] == [NODE]
    step = (await api.get("/enrolments/crawler")).json()["steps"][0]
    assert step["image"]["pinned"] == f"busybox:1.36@sha256:{'a' * 64}"
    assert step["output"] == {
        "name": "charts",
        "master": "/srv/git/charts.git",
        "branch": NODE,
        "vote": None,
        "lfs_above": None,
    }
    assert (services.images, services.datasets) == ([("busybox:1.36", "missing")], ["charts"])
    [state] = (await api.get("/pipeline")).json()["items"]
    assert (state["name"], state["enrolled"], state["outdated"]) == ("crawler", True, False)


async def test_init_accepts_later_client_fields(api: httpx.AsyncClient) -> None:
    await register(api)
    step: dict[str, Any] = {"name": "s", "tool": "crawler", "input_dataset": None, "output_dataset": "charts"}
    step |= {"cmd": ["sh", "-c", "true"], "env": None, "docker_socket": False}
    made = await api.post("/pipeline/init", json={"name": "p", "steps": [step]})
    assert made.status_code == 201, made.text
    assert made.json()["steps"][0]["command"] == ["sh", "-c", "true"]

    made = await api.post("/pipeline/init", json={**INIT, "cmd": ["true"], "env": {"A": "1"}})
    assert (made.json()["steps"][0]["command"], made.json()["steps"][0]["env"]) == (["true"], {"A": "1"})


@pytest.mark.parametrize(
    ("services", "code"),
    [(ImagelessServices(), "image-not-found"), (RemotelessServices(), "dataset-unreachable")],
)
async def test_init_service_refusal_writes_nothing(
    memory: MemoryStore, services: NodeServices, code: str
) -> None:
    async with serving(memory, services) as api:
        await register(api)
        before = await _all(memory)
        refused = await api.post("/pipeline/init", json=INIT)
    assert (refused.status_code, refused.json()["code"]) == (422, code)
    assert await _all(memory) == before


async def test_init_requires_agreement_to_privileges(quick_api: httpx.AsyncClient) -> None:
    await register(quick_api, **PRIVILEGED)
    refused = (await quick_api.post("/pipeline/init", json={**INIT, "agree": ["user root"]})).json()
    assert (refused["code"], refused["agree"]) == ("agreement-needed", WORDS)
    options = "--agree 'capability NET_RAW' --agree 'host network' --agree 'user root'"
    assert f"maoctl pipeline init crawler charts {options}" in refused["next"]
    assert "'user root'" not in refused["detail"]

    assert (await quick_api.post("/pipeline/init", json={**INIT, "agree": WORDS})).status_code == 201
    assert (await quick_api.get("/enrolments/crawler")).json()["agreed"] == WORDS
    assert (await quick_api.put("/enrolments/crawler")).status_code == 200


async def test_renew_requires_agreement_to_new_privileges(quick_api: httpx.AsyncClient) -> None:
    await enrol(quick_api)
    await quick_api.put("/registry/tools/crawler", json={**TOOL, "network": "host"})
    refused = await quick_api.put("/enrolments/crawler", json={"agree": []})
    assert refused.json()["code"] == "agreement-needed"
    assert "maoctl pipeline enrol crawler --agree 'host network'" in refused.json()["next"]
    assert (await quick_api.put("/enrolments/crawler", json={"agree": ["host network"]})).status_code == 200


async def test_renew_uses_current_pipeline(quick_api: httpx.AsyncClient, services: WillingServices) -> None:
    await enrol(quick_api)
    changed = {"name": "crawler", "steps": [{"tool": "crawler", "dataset": "charts", "command": ["new"]}]}
    await quick_api.put("/registry/pipelines/crawler", json=changed)
    [state] = (await quick_api.get("/pipeline")).json()["items"]
    assert state["outdated"] is True

    renewed = await quick_api.put("/enrolments/crawler", json={"pull": "always"})
    assert (renewed.status_code, renewed.json()["steps"][0]["command"]) == (200, ["new"])
    assert services.images[-1] == ("busybox:1.36", "always")
    [state] = (await quick_api.get("/pipeline")).json()["items"]
    assert state["outdated"] is False


async def test_renew_rejects_stale_etag(quick_api: httpx.AsyncClient) -> None:
    await enrol(quick_api)
    stale = {"If-Match": '"1"'}
    assert (await quick_api.put("/enrolments/crawler", headers=stale)).status_code == 412
    assert (await quick_api.delete("/enrolments/crawler", headers=stale)).status_code == 412


async def test_init_enrols_second_node(memory: MemoryStore) -> None:
    async with serving(memory, WillingServices()) as one:
        await enrol(one)
    async with serving(MemoryStore(), WillingServices(), node="node-2", federation=memory) as two:
        assert (await two.post("/pipeline/init", json=INIT)).status_code == 201
        assert (await two.get("/registry/datasets/charts")).json()["nodes"] == [NODE, "node-2"]
        assert (await two.get("/enrolments/crawler")).json()["node"] == "node-2"
        assert (await two.delete("/enrolments/crawler")).status_code == 204
        assert (await two.get("/registry/datasets/charts")).json()["nodes"] == [NODE]


@pytest.mark.parametrize("two_stores", [False, True])
@pytest.mark.parametrize("lives", [0, 1, 2])
async def test_init_repeated_after_kill_completes(lives: int, two_stores: bool) -> None:
    federation = MemoryStore()
    own = MemoryStore() if two_stores else federation
    async with serving(own, WillingServices(), federation=federation) as api:
        await register(api)
    dying: Any = DyingStore(federation, lives)
    async with serving(own if two_stores else dying, WillingServices(), federation=dying) as api:
        with contextlib.suppress(Killed):
            await api.post("/pipeline/init", json=INIT)

    async with serving(own, WillingServices(), federation=federation) as api:
        again = await api.post("/pipeline/init", json=INIT)
        assert (again.status_code, again.json().get("code")) in ((201, None), (409, "already-exists"))
        assert (await api.get("/enrolments/crawler")).status_code == 200
        assert (await api.get("/registry/datasets/charts")).json()["nodes"] == [NODE]


async def _schedule(store: Store) -> None:
    schedule = Schedule(cron="@daily", id="crawler-1", pipeline="crawler", created_at=NOW)
    await store.create(keys.schedule(NODE, schedule.id), dump(schedule))


async def _run(store: Store, run_id: str, phase: str) -> None:
    document = {"id": run_id, "pipeline": "crawler", "node": NODE, "trigger": "manual", "phase": phase}
    run = Run.model_validate({**document, "created_at": NOW})
    await store.create(keys.run(NODE, run.id), dump(run))


async def test_withdraw_refused_while_referenced(api: httpx.AsyncClient, store: Store) -> None:
    await enrol(api)
    await _schedule(store)
    await _run(store, "run-1", "running")
    await _run(store, "run-0", "succeeded")

    refused = (await api.delete("/enrolments/crawler")).json()
    assert refused["references"] == [
        {"kind": "run", "name": "run-1"},
        {"kind": "schedule", "name": "crawler-1"},
    ]
    assert refused["next"] == "Remove what uses it, beginning with: maoctl run cancel run-1"
    assert (await api.get("/registry/datasets/charts")).json()["nodes"] == [NODE]
    assert len((await api.delete("/registry/pipelines/crawler")).json()["references"]) == 3


async def test_withdraw_keeps_node_in_shared_dataset(
    quick_api: httpx.AsyncClient,
) -> None:
    await enrol(quick_api)
    other = {"name": "other", "steps": [{"tool": "crawler", "dataset": "charts"}]}
    await quick_api.post("/pipeline/init", json=other)
    await quick_api.delete("/enrolments/crawler")
    assert (await quick_api.get("/registry/datasets/charts")).json()["nodes"] == [NODE]
    await quick_api.delete("/enrolments/other")
    assert (await quick_api.get("/registry/datasets/charts")).json()["nodes"] == []


async def test_init_idempotency_key_replays_answer(api: httpx.AsyncClient) -> None:
    await register(api)
    key = {"Idempotency-Key": "init-1"}
    first = await api.post("/pipeline/init", json=INIT, headers=key)
    again = await api.post("/pipeline/init", json=INIT, headers=key)
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.headers["etag"] == again.headers["etag"]


async def test_init_idempotency_key_replays_refusal(api: httpx.AsyncClient) -> None:
    await enrol(api)
    for path, body in (("pipeline/init", INIT), ("registry/tools", TOOL)):
        for _ in range(2):
            refused = await api.post(f"/{path}", json=body, headers={"Idempotency-Key": "late"})
            assert (refused.status_code, refused.json()["code"]) == (409, "already-exists")


async def test_init_read_only_dataset_omits_node(quick_api: httpx.AsyncClient) -> None:
    await register(quick_api)
    await quick_api.post("/registry/datasets", json={"name": "source", "master": "/srv/s.git"})
    step = {"tool": "crawler", "dataset": "charts", "input_dataset": "source"}
    await quick_api.post("/pipeline/init", json={"name": "p", "steps": [step]})
    assert (await quick_api.get("/registry/datasets/source")).json()["nodes"] == []
    [enrolled] = (await quick_api.get("/enrolments/p")).json()["steps"]
    assert enrolled["input"]["branch"] == "ground-truth"
