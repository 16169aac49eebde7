"""Create, read, list, update, delete: the same for every kind, on both kinds of store."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from mao_shared import keys
from mao_shared.models import Participation
from mao_shared.store import Store
from mao_shared.store.memory import MemoryStore
from mao_shared.store.records import dump
from tests.registry.seed import DATASET, TOOL, enrol, register

PIPELINE: dict[str, Any] = {"name": "p", "steps": [{"tool": "crawler", "dataset": "charts"}]}
KINDS = [("tools", TOOL), ("datasets", DATASET), ("pipelines", PIPELINE)]


async def _make(api: httpx.AsyncClient, kind: str, body: dict[str, Any]) -> httpx.Response:
    if kind == "pipelines":
        await register(api)
    return await api.post(f"/registry/{kind}", json=body)


@pytest.mark.parametrize(("kind", "body"), KINDS)
async def test_record_life_cycle(api: httpx.AsyncClient, kind: str, body: dict[str, Any]) -> None:
    made = await _make(api, kind, body)
    where = made.headers["location"]
    assert (made.status_code, where) == (201, f"/registry/{kind}/{body['name']}")
    assert made.json()["name"] == body["name"]

    read = await api.get(where)
    assert (read.json(), read.headers["etag"]) == (made.json(), made.headers["etag"])
    assert (await api.get(f"/registry/{kind}")).json() == {"items": [made.json()], "cursor": None}

    match = {"If-Match": read.headers["etag"]}
    changed = await api.put(where, json={**body, "description": "new"}, headers=match)
    assert (changed.status_code, changed.json()["description"]) == (200, "new")
    assert changed.headers["etag"] != read.headers["etag"]

    assert (await api.delete(where, headers={"If-Match": changed.headers["etag"]})).status_code == 200
    assert (await api.get(where)).json()["code"] == "not-found"


@pytest.mark.parametrize(("kind", "body"), KINDS)
async def test_record_update_rejects_stale_etag(
    api: httpx.AsyncClient, kind: str, body: dict[str, Any]
) -> None:
    made = await _make(api, kind, body)
    where, stale = made.headers["location"], {"If-Match": made.headers["etag"]}
    now = await api.put(where, json={**body, "description": "second"})

    assert (await api.put(where, json=body, headers=stale)).json()["code"] == "precondition-failed"
    assert (await api.delete(where, headers=stale)).status_code == 412
    assert (await api.get(where)).headers["etag"] == now.headers["etag"]


async def test_record_list_pages_by_cursor(api: httpx.AsyncClient) -> None:
    for name in "abcde":
        await api.post("/registry/tools", json={**TOOL, "name": name})
    names: list[str] = []
    query: dict[str, Any] = {"limit": 2}
    while len(names) < 5:
        page = (await api.get("/registry/tools", params=query)).json()
        names += [item["name"] for item in page["items"]]
        query["cursor"] = page["cursor"]
    assert query["cursor"] is None
    assert names == list("abcde")


async def test_record_list_rejects_expired_cursor(memory: MemoryStore, quick_api: httpx.AsyncClient) -> None:
    for name in "ab":
        await quick_api.post("/registry/tools", json={**TOOL, "name": name})
    cursor = (await quick_api.get("/registry/tools?limit=1")).json()["cursor"]
    await quick_api.delete("/registry/tools/b")
    memory.compact(memory.revision)
    late = await quick_api.get("/registry/tools", params={"cursor": cursor})
    assert (late.status_code, late.json()["code"]) == (410, "compacted")
    assert "without 'cursor'" in late.json()["next"]


async def test_record_of_other_version_is_unreadable(
    memory: MemoryStore, quick_api: httpx.AsyncClient
) -> None:
    await memory.create(keys.registry("tools", "new"), b'{"name": "new", "colour": "blue"}')
    answer = await quick_api.get("/registry/tools/new")
    assert (answer.status_code, answer.json()["code"]) == (409, "record-unreadable")
    assert "newer version" in answer.json()["next"]


async def test_record_list_includes_readable_beside_unreadable(
    memory: MemoryStore, quick_api: httpx.AsyncClient
) -> None:
    await register(quick_api)
    await memory.create(keys.registry("tools", "broken"), b'{"name": "broken", "colour": "blue"}')
    answer = await quick_api.get("/registry/tools")
    assert [tool["name"] for tool in answer.json()["items"]] == ["crawler"]


async def test_record_create_idempotency_key(api: httpx.AsyncClient) -> None:
    key = {"Idempotency-Key": "k1"}
    first = await api.post("/registry/tools", json=TOOL, headers=key)
    again = await api.post("/registry/tools", json=TOOL, headers=key)
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.headers["etag"] == again.headers["etag"]
    other = await api.post("/registry/tools", json={**TOOL, "author": "x"}, headers=key)
    assert other.json()["code"] == "idempotency-key-reused"


async def test_record_delete_refused_names_references(api: httpx.AsyncClient) -> None:
    await enrol(api)
    used = [{"kind": "enrolment", "name": "crawler"}, {"kind": "pipeline", "name": "crawler"}]
    for path, references in (
        ("tools/crawler", used),
        ("datasets/charts", used),
        ("pipelines/crawler", used[:1]),
    ):
        refused = await api.delete(f"/registry/{path}")
        assert (refused.status_code, refused.json()["code"]) == (409, "still-referenced")
        assert refused.json()["references"] == references
        assert (
            refused.json()["next"] == "Remove what uses it, beginning with: maoctl pipeline withdraw crawler"
        )


async def test_record_delete_succeeds_in_order_of_next(api: httpx.AsyncClient) -> None:
    await enrol(api)
    assert (await api.delete("/enrolments/crawler")).status_code == 204
    for path in ("pipelines/crawler", "tools/crawler", "datasets/charts"):
        assert (await api.delete(f"/registry/{path}")).json()["removed"] == path.partition("/")[2]


async def test_dataset_delete_refused_while_nodes_listed(api: httpx.AsyncClient) -> None:
    await api.post("/registry/datasets", json={"name": "d", "body": {"master": "/d.git", "nodes": ["far"]}})
    refused = (await api.delete("/registry/datasets/d")).json()
    assert refused["references"] == [{"kind": "node", "name": "far"}]
    assert refused["next"] == "Remove what uses it, beginning with: maoctl node remove far"

    assert (await api.delete("/registry/nodes/far")).status_code == 200
    assert (await api.delete("/registry/datasets/d")).status_code == 200


async def test_node_removal_ends_participation(api: httpx.AsyncClient, store: Store) -> None:
    await store.create(keys.part("far", "d"), dump(Participation(dataset="d", since=datetime.now(UTC))))
    await store.create(keys.part("near", "d"), b"{}")
    assert (await api.delete("/registry/nodes/far")).status_code == 200
    left = (await store.list(keys.all_peers())).entries
    assert [entry.key for entry in left if "/parts/" in entry.key] == [keys.part("near", "d")]
    assert (await api.delete("/registry/nodes/far")).status_code == 404


async def test_withdraw_with_unreadable_dataset(api: httpx.AsyncClient, store: Store) -> None:
    await enrol(api)
    key = keys.registry("datasets", "charts")
    there = await store.get(key)
    assert there is not None
    await store.replace(key, b"{", there.revision)
    assert (await api.delete("/enrolments/crawler")).status_code == 204
    assert (await api.get("/enrolments/crawler")).status_code == 404


async def test_dataset_external_key_is_unique(api: httpx.AsyncClient) -> None:
    async def make(name: str) -> httpx.Response:
        body = {"name": name, "master": f"/{name}.git", "external": ["temperature"]}
        return await api.post("/registry/datasets", json=body)

    answers = await asyncio.gather(*(make(name) for name in "abc"))
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409]
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} == {
        "external-key-taken"
    }
    (first,) = (answer.json() for answer in answers if answer.status_code == 201)
    again = await api.put(f"/registry/datasets/{first['name']}", json={**first, "description": "its own"})
    assert again.status_code == 200


async def test_dataset_remote_resolves_symlink(api: httpx.AsyncClient, tmp_path: Path) -> None:
    (tmp_path / "a.git").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "a.git")
    body = {"name": "one", "master": str(tmp_path / "a.git")}
    assert (await api.post("/registry/datasets", json=body)).status_code == 201
    for other in (tmp_path / "link", tmp_path / "a", f"file://{tmp_path}/link", f"FILE://{tmp_path}/a.git"):
        answer = await api.post("/registry/datasets", json={"name": "two", "master": str(other)})
        assert answer.json()["code"] == "dataset-remote-taken", other


async def test_dataset_remote_is_unique(api: httpx.AsyncClient) -> None:
    async def make(name: str, master: str) -> httpx.Response:
        return await api.post("/registry/datasets", json={"name": name, "master": master})

    answers = await asyncio.gather(*(make(name, "/srv/a.git") for name in "abc"))
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409]
    (first,) = (answer.json()["name"] for answer in answers if answer.status_code == 201)
    refused = (await make("other", "file:///srv/a.git/")).json()
    assert (refused["code"], refused["dataset"]) == ("dataset-remote-taken", first)
    assert f"dataset '{first}'" in refused["detail"]

    assert (await make("other", "/srv/b.git")).status_code == 201
    moved = {"name": "other", "master": "/srv/a.git"}
    assert (await api.put("/registry/datasets/other", json=moved)).json()["code"] == "dataset-remote-taken"
    same = {"name": first, "master": "/srv/a.git/", "description": "its own"}
    assert (await api.put(f"/registry/datasets/{first}", json=same)).status_code == 200
