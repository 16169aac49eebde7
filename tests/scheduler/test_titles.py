"""Pipelines are run and scheduled by their titles; clients of the original get a map of jobs."""

from __future__ import annotations

from urllib.parse import quote

import httpx
import pytest

from mao_shared.models.pipeline import name_from_title
from mao_shared.store.memory import MemoryStore

from .harness import put
from .samples import enrolment
from .test_api import http, memory, post

__all__ = ["http", "memory"]  # fixtures

TITLED = ["Packages only", "Größe/Breite", "🚀"]


@pytest.mark.parametrize("title", TITLED)
async def test_run_pipeline_by_title(http: httpx.AsyncClient, memory: MemoryStore, title: str) -> None:
    name, path = name_from_title(title), quote(title, safe="")
    await put(memory, enrolment(name).model_copy(update={"title": title}))
    for cron in (None, "", " ", False):
        started = await post(http, "/pipeline/run", {"name": title, "cron": cron}, 201)
        assert (started["pipeline"], started["trigger"]) == (name, "manual")
    job = await post(http, "/pipeline/run", {"name": title, "cron": "@daily"}, 201)
    assert job["pipeline"] == name
    for query in (path, name):
        assert [item["id"] for item in (await http.get(f"/jobs?pipeline={query}")).json()["items"]] == [
            job["id"]
        ]
        assert len((await http.get(f"/runs?pipeline={query}")).json()["items"]) == 4
    other = name + "/" if title != "🚀" else "🛰"
    unknown = await post(http, "/pipeline/run", {"name": other}, 404)
    assert unknown["code"] == "unknown-pipeline", "another title with the same name is another pipeline"
    second = await post(http, "/pipeline/run", {"name": name, "cron": "@weekly"}, 201)
    several = await http.delete(f"/jobs/{path}")
    assert (several.status_code, several.json()["code"]) == (409, "several-jobs")
    assert (await http.delete(f"/jobs/{second['id']}")).json()["removed"] == second["id"]
    assert (await http.delete(f"/jobs/{path}")).json()["removed"] == job["id"]


async def test_list_jobs_for_clients_of_the_original(http: httpx.AsyncClient) -> None:
    job = await post(http, "/pipeline/run", {"name": "crawler", "cron": "@daily"}, 201)
    paused = await post(http, "/pipeline/run", {"name": "crawler", "cron": "@weekly"}, 201)
    await post(http, f"/jobs/{paused['id']}/pause")
    headers = {"User-Agent": "python-requests/2.25.1", "Accept": "*/*"}
    assert (await http.get("/jobs", headers=headers)).json() == {
        job["id"]: "2026-11-25 00:00:00+00:00",
        paused["id"]: None,
    }
    assert "items" in (await http.get("/jobs", headers=headers | {"Accept": "application/json"})).json()
