"""The gateway as a whole: pages, status, tokens, start."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from mao_gateway.app import make_app
from mao_gateway.auth import new_token
from mao_gateway.settings import GatewaySettings
from mao_gateway.status import merge_conditions, next_steps, parse_readyz
from mao_shared.conditions import NAMES, Conditions, conditions_of
from mao_shared.models.node import ConditionState
from mao_shared.store.memory import MemoryStore
from tests.shared.service.test_app import answers, store_is_away
from tests.shared.service.test_app import make_app as make_service_app

from .conftest import Open

ALL = ("registry", "scheduler", "runner", "datamgmt")


async def test_pages_load_nothing_external(open_gateway: Open) -> None:
    async with open_gateway() as client:
        page = await client.get("/")
        links = re.findall(r'(?:href|src)="(/ui/static/[^"]+)"', page.text)
        files = [await client.get(link) for link in links]
        former = await client.get("/dashboard")
        missing = [await client.get(f"/ui/static/x/{name}") for name in ("..%2fsite.py", "site.py", "no.css")]
        stale = await client.get("/ui/static/000000000000/style.css")
    assert (former.status_code, former.headers["location"]) == (308, "/")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert [answer.status_code for answer in missing] == [404] * 3
    assert len(files) == 3
    assert all("immutable" in answer.headers["cache-control"] for answer in files)
    assert stale.headers["cache-control"] == "no-cache"
    for text in (page.text, *(answer.text for answer in files)):
        assert "://" not in text.replace("http://www.w3.org/2000/svg", "").replace("http://127.0.0.1:9", "")
    assert "style=" not in page.text
    assert "<script>" not in page.text
    assert " on" not in re.sub(r">[^<]*<", "><", page.text)


async def test_pages_words_of_others_stay_text(open_gateway: Open) -> None:
    hostile = "<img src=x onerror=alert(1)>\x1b[2J\u202e"
    app = make_service_app(store=answers)
    conditions_of(app).report("remote", hostile, detail=hostile, next_step=hostile)
    async with open_gateway(dict.fromkeys(ALL, app)) as client:
        page = (await client.get("/")).text
    assert "&lt;img src=x onerror=alert(1)&gt;\\x1b[2J\\u202e" in page
    assert "<img" not in page


async def test_pages_unknown_path_is_a_page(open_gateway: Open) -> None:
    async with open_gateway() as client:
        page = await client.get("/ui/no-such-page")
    assert page.status_code == 404
    assert page.headers["content-type"].startswith("text/html")


async def test_status_healthy(open_gateway: Open) -> None:
    async with open_gateway(dict.fromkeys(ALL, make_service_app(store=answers))) as client:
        status = (await client.get("/status")).json()
        ready = await client.get("/readyz")
    assert (status["ready"], status["store"], status["next"]) == (True, "ok", [])
    assert status["services"]["runner"]["checks"] == {"store": "ok"}
    assert ready.status_code == 200


async def test_status_next_steps(open_gateway: Open) -> None:
    apps = dict.fromkeys(ALL[:3], make_service_app(store=answers))
    apps["runner"] = make_service_app(docker=store_is_away)
    async with open_gateway(apps) as client:
        status = (await client.get("/status")).json()
        ready = await client.get("/readyz")
    assert not status["ready"]
    assert sorted(step.split()[0] for step in status["next"]) == ["'docker", "datamgmt"]
    assert {(condition["name"], condition["subject"]) for condition in status["conditions"]} == {
        ("engine", ""),
        ("service", "datamgmt"),
    }
    assert ready.status_code == 503
    assert set(ready.json()["checks"]) == {"store", *ALL}


@pytest.mark.parametrize(
    ("document", "checks"), [(None, {}), ([], {}), ({"checks": None}, {}), ({"checks": {"a": 1}}, {"a": "1"})]
)
def test_parse_readyz_unexpected(document: Any, checks: dict[str, str]) -> None:
    assert parse_readyz(503, document).checks == checks


def test_merge_conditions_keeps_worst() -> None:
    own = Conditions()
    own.report("store", detail="slow", next_step="Look at the disk.")
    full = {"name": "store", "state": "failed", "since": "2026-01-31T12:00:00Z", "detail": "full"}
    services = {
        name: parse_readyz(503, {"checks": {}, "conditions": [full | {"next": "Make room."}]})
        for name in ("registry", "scheduler")
    }
    [row] = merge_conditions(own, {"store": "ok"}, services)
    assert (row.state, row.detail, row.services) == ("failed", "full", ["gateway", "registry", "scheduler"])
    assert row.since.year == 2026
    assert next_steps([row, row]) == ["Make room."]


def test_parse_readyz_skips_unreadable_conditions() -> None:
    odd: list[Any] = [None, {"name": "new", "state": "sideways"}, {"name": "disk", "state": "failed"}, [], 5]
    good = {"name": "disk", "state": "degraded", "since": "2026-01-31T12:00:00Z"}
    known = parse_readyz(200, {"checks": {}, "conditions": [*odd, good]}).conditions
    assert [condition.name for condition in known] == ["disk"]


@pytest.mark.parametrize("state", ["failed", "degraded"])
@pytest.mark.parametrize("name", sorted(NAMES))
async def test_service_condition_in_status_and_readyz(
    open_gateway: Open, name: str, state: ConditionState
) -> None:
    """The page's first table is filled from `/status`, as `maoctl doctor` is."""
    apps = {service: make_service_app(store=answers) for service in ALL}
    for service in ("runner", "datamgmt"):
        conditions_of(apps[service]).report(name, "of/this", detail="So.", next_step="Do this.", state=state)
    async with open_gateway(apps) as client:
        status = (await client.get("/status")).json()
        ready = await client.get("/readyz")
    [told] = status["conditions"]
    assert (told["name"], told["subject"], told["state"]) == (name, "of/this", state)
    assert (told["detail"], told["next"], told["services"]) == ("So.", "Do this.", ["runner", "datamgmt"])
    assert status["next"] == ["Do this."]
    assert (status["ready"], ready.status_code) == ((False, 503) if state == "failed" else (True, 200))


async def test_unreachable_service_is_condition(open_gateway: Open) -> None:
    apps = dict.fromkeys(ALL, make_service_app(store=answers))
    del apps["runner"]
    async with open_gateway(apps) as client:
        listed = (await client.get("/conditions")).json()["items"]
    assert [(condition["name"], condition["subject"], condition["state"]) for condition in listed] == [
        ("service", "runner", "failed")
    ]


async def test_app_with_tokens(tmp_path: Path) -> None:
    token, line = new_token("ada")
    (tmp_path / "tokens").write_text(line)
    settings = GatewaySettings(host="0.0.0.0", tokens_file=tmp_path / "tokens")
    app = make_app(settings, store=MemoryStore())
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://10.0.0.7:8080") as client,
    ):
        refused = await client.get("/status")
        wrong = await client.get("/status", headers={"authorization": "Bearer nope"})
        allowed = await client.get("/status", headers={"authorization": f"Bearer {token}"})
    assert (refused.status_code, refused.json()["code"]) == (401, "unauthorized")
    assert {challenge.partition(" ")[0] for challenge in refused.headers.get_list("www-authenticate")} == {
        "Bearer",
        "Basic",
    }
    assert (wrong.status_code, wrong.json()["code"]) == (401, "token-unknown")
    assert wrong.headers["x-request-id"] == wrong.json()["request_id"]
    assert allowed.status_code == 200


def start(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mao_gateway", *arguments]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MAO_")}
    return subprocess.run(
        command, env=clean | environ, capture_output=True, text=True, timeout=60, check=False
    )


def test_app_public_without_tokens_does_not_start() -> None:
    ended = start(MAO_HOST="0.0.0.0")
    assert ended.returncode == 2
    assert "Without tokens" in ended.stderr
    assert "--new-token" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_main_new_token() -> None:
    ended = start("--new-token", "ada")
    assert ended.returncode == 0
    assert ended.stdout.startswith("ada:")
    assert "mao_" in ended.stderr


@pytest.mark.parametrize(
    ("method", "path", "now"),
    [
        ("GET", "/regtools", "GET /registry/tools"),
        ("GET", "/regtools/crawler", "GET /registry/tools/NAME"),
        ("POST", "/register", "POST /registry/tools"),
        ("POST", "/tooldelete", "DELETE /registry/tools/NAME"),
        ("GET", "/files/clone/data", "GET /datasets/NAME/files"),
        ("POST", "/run", "POST /pipeline/run"),
    ],
)
async def test_former_calls_name_replacement(open_gateway: Open, method: str, path: str, now: str) -> None:
    async with open_gateway() as client:
        answer = await client.request(method, path, json={})
    assert (answer.status_code, answer.json()["code"]) == (410, "gone")
    assert now in answer.json()["next"]
