"""Public status of datasets: what it says, that it may be cached, and that all else stays closed."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Response
from starlette.types import Scope

from mao_gateway.app import make_app
from mao_gateway.auth import PUBLIC_PARTS, new_token
from mao_gateway.pages.federation.public import Collection, PublicStatus, badge, status_strip
from mao_gateway.settings import GatewaySettings
from mao_shared.models.evidence import RoundSummary
from mao_shared.store.memory import MemoryStore

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
SECRET = "s3cret-detail"
HOSTILE = "<img src=x onerror=alert(1)>"


def round_(cells: int = 0) -> RoundSummary:
    return RoundSummary(
        round="r", tick=NOW, commit="c" * 40, nodes=3, voters=2, files=1, cells=cells, conflicts=0,
        warnings=[SECRET], differing={"n1": 0},
    )  # fmt: skip


# what is said


@pytest.mark.parametrize(
    ("marks", "last", "verdict"),
    [
        (["sss"], NOW, ("ok", "data comes in")),
        (["ffs"], NOW, ("ok", "data comes in")),
        (["ssL"], NOW, ("ok", "data comes in")),
        (["ssf"], NOW, ("bad", "the last collection did not succeed")),
        (["ssm"], NOW, ("bad", "the last collection did not succeed")),
        (["ssfrw"], NOW, ("bad", "the last collection did not succeed")),
        (["ssq"], NOW, ("bad", "the last data are held back by a check")),
        (["ssqr", "s"], NOW, ("bad", "the last data are held back by a check")),
        (["qs"], NOW, ("ok", "data comes in")),
        (["ssr"], NOW, ("ok", "data comes in")),
        (["sss", "f"], NOW, ("bad", "the last collection did not succeed")),
        ([""], NOW, ("off", "not scheduled here")),
        ([], NOW, ("off", "not scheduled here")),
        ([], None, ("off", "no data yet")),
    ],
)
def test_public_verdict(marks: list[str], last: datetime | None, verdict: tuple[str, str]) -> None:
    status = PublicStatus("data", last, [Collection(f"p{at}", one) for at, one in enumerate(marks)])
    assert status.verdict == verdict


@pytest.mark.parametrize(
    ("found", "agreement"),
    [
        (None, ("off", "no round of several nodes yet")),
        (round_(), ("ok", "2 of 3 nodes agree on everything")),
        (round_(12), ("warn", "2 of 3 nodes voted; they differ in 12 cells")),
    ],
)
def test_public_agreement(found: RoundSummary | None, agreement: tuple[str, str]) -> None:
    assert PublicStatus("data", NOW, round=found).agreement == agreement


@pytest.mark.parametrize("name", ["data", "x" * 63, "ü&<'\""])
@pytest.mark.parametrize("status", [None, PublicStatus("data", None), PublicStatus("data", NOW)])
def test_public_badge_is_an_image(name: str, status: PublicStatus | None) -> None:
    root = ET.fromstring(badge(name, status))
    texts = [each.text for each in root.iter("{http://www.w3.org/2000/svg}text")]
    assert texts[0] == (name if len(name) <= 40 else name[:39] + "…")
    assert int(root.attrib["width"]) > 100


def test_public_strip_has_no_links() -> None:
    drawn = status_strip(Collection(HOSTILE, "ssf?m" + "s" * 100))
    assert "<a" not in drawn
    assert "<img" not in drawn
    assert "60 ticks succeeded" in drawn


# over HTTP


def services(answer: int = 200) -> dict[str, Any]:
    """Services that answer for the dataset `data`, with a secret in all that must not be shown."""
    app = FastAPI()
    calls: list[str] = []

    @app.get("/datasets/{name}/log")
    async def log(name: str, response: Response) -> Any:
        calls.append("log")
        response.status_code = answer
        said = dict.fromkeys(("author", "email", "subject", "message", "run"), SECRET)
        commit = {"commit": "a" * 40, "parents": [], "time": "2026-01-31T12:00:00Z", **said}
        return {"items": [commit]} if answer == 200 else {"detail": SECRET, "code": SECRET, "status": answer}

    @app.get("/datasets/{name}/rounds")
    async def rounds(name: str) -> Any:
        return {"items": [round_(3).model_dump(mode="json")]}

    @app.get("/enrolments")
    async def enrolments() -> Any:
        image = {"name": SECRET, "pinned": SECRET, "platform": "linux/amd64"}
        step: dict[str, Any] = {"name": "s", "tool": SECRET, "image": image, "output": {}}
        step["output"] = {"name": "data", "master": SECRET, "branch": "node-1"}
        record = {"pipeline": "crawl", "node": "node-1", "steps": [step], "pipeline_revision": 1}
        return {"items": [{**record, "enrolled_at": "2026-01-31T12:00:00Z"}]}

    @app.get("/ticks")
    async def ticks() -> Any:
        strip = {"node": "node-1", "marks": "sssf", "updated_at": "2026-01-31T12:00:00Z"}
        brief = {"id": SECRET, "trigger": "schedule", "phase": "failed", "reason": SECRET}
        return {"items": [{**strip, "pipeline": "crawl", "last": brief}, {**strip, "pipeline": SECRET}]}

    app.state.calls = calls
    return dict.fromkeys(("registry", "scheduler", "runner", "datamgmt"), app)


class NobodysCalls:
    async def admits(self, scope: Scope) -> bool:
        return False


@asynccontextmanager
async def gateway(
    public: str, apps: dict[str, Any] | None = None, base: str = "http://localhost:8080", **settings: Any
) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of a gateway that admits nobody without a token."""
    transports = {name: httpx.ASGITransport(app) for name, app in (apps or {}).items()}
    store = MemoryStore()
    app = make_app(
        GatewaySettings(public_status=public, **settings),
        store=store,
        transports=transports,
        callers=NobodysCalls(),
    )
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=base) as client,
    ):
        yield client
    await store.close()


async def test_public_status_says_times_and_counts_only() -> None:
    async with gateway("data", services()) as client:
        page = await client.get("/public/data")
        image = await client.get("/public/data/badge.svg")
        style = await client.get("/public/data/style.css")
    assert [answer.status_code for answer in (page, image, style)] == [200] * 3
    assert "the last collection did not succeed" in page.text
    assert "2 of 3 nodes voted; they differ in 3 cells" in page.text
    assert "4 ticks of crawl: 3 succeeded, 1 failed" in page.text
    assert "31 Jan 2026" in page.text
    for answer in (page, image):
        assert SECRET not in answer.text
        assert "script" not in answer.text
        assert "127.0.0.1" not in answer.text
        assert "n1" not in answer.text
    assert image.headers["content-type"] == "image/svg+xml"
    assert image.headers["cross-origin-resource-policy"] == "cross-origin"
    assert page.headers["cross-origin-resource-policy"] == "same-origin"
    assert "default-src 'none'" in page.headers["content-security-policy"]


async def test_public_status_may_be_cached_and_asks_the_services_once() -> None:
    apps = services()
    async with gateway("data", apps) as client:
        for path in ("/public/data", "/public/data/badge.svg", "/public/data/style.css"):
            first = await client.get(path)
            assert first.headers["cache-control"] == "public, max-age=60"
            for tag in (
                first.headers["etag"],
                f"W/{first.headers['etag']}",
                f'"x", {first.headers["etag"]}',
                "*",
            ):
                again = await client.get(path, headers={"If-None-Match": tag})
                assert (again.status_code, again.content) == (304, b"")
                assert again.headers["etag"] == first.headers["etag"]
            assert (await client.get(path, headers={"If-None-Match": '"x"'})).status_code == 200
    assert apps["datamgmt"].state.calls == ["log"]


@pytest.mark.parametrize("apps", [None, services(500)])
async def test_public_status_of_a_node_in_trouble_tells_no_reason(apps: dict[str, Any] | None) -> None:
    async with gateway("data", apps) as client:
        page = await client.get("/public/data")
        image = await client.get("/public/data/badge.svg")
    assert [answer.status_code for answer in (page, image)] == [503, 503]
    assert page.headers["cache-control"] == "no-store"
    assert "not known" in page.text
    assert "not known" in image.text
    for word in (SECRET, "127.0.0.1", "maoctl", "datamgmt"):
        assert word not in page.text + image.text


async def test_public_status_of_a_dataset_that_is_not_here() -> None:
    async with gateway("data", services(404)) as client:
        page = await client.get("/public/data")
    assert page.status_code == 200
    assert "nothing has been collected here yet" in page.text


CLOSED = [
    ("GET", "/"),
    ("GET", "/public"),
    ("GET", "/public/"),
    ("GET", "/public/other"),
    ("GET", "/public/data/"),
    ("GET", "/public/data/other"),
    ("GET", "/public/data/badge.svg/x"),
    ("GET", "/public/data/../../status"),
    ("GET", "/public/data%2F..%2F..%2Fstatus"),
    ("GET", "//public/data"),
    ("GET", "/PUBLIC/data"),
    ("HEAD", "/public/data"),
    ("POST", "/public/data"),
    ("DELETE", "/public/data"),
    ("OPTIONS", "/public/data"),
    ("GET", "/status"),
    ("GET", "/datasets/data"),
    ("GET", "/datasets/data/log"),
    ("GET", "/ui/alarms"),
    ("GET", "/ui/static/000000000000/style.css"),
    ("GET", "/audit"),
    ("GET", "/openapi.json"),
    ("POST", "/pipeline/run"),
]


@pytest.mark.parametrize("tokens", [True, False])
async def test_public_status_opens_nothing_else(tmp_path: Path, tokens: bool) -> None:
    token, line = new_token("ada")
    (tmp_path / "tokens").write_text(line)
    more = {"tokens_file": tmp_path / "tokens", "host": "0.0.0.0"} if tokens else {}
    base = "http://node.lab.example:8080" if tokens else "http://localhost:8080"
    async with gateway("data", services(), base, **more) as client:
        for method, path in CLOSED:
            answer = await client.request(method, path)
            assert answer.status_code == 401, (method, path)
        for part in PUBLIC_PARTS:
            assert (await client.get(f"/public/data{part}")).status_code == 200
            elsewhere = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
            assert (await client.get(f"/public/data{part}", headers=elsewhere)).status_code == 200
        if tokens:
            own = {"Authorization": f"Bearer {token}"}
            assert (await client.get("/public/other", headers=own)).status_code == 404


@pytest.mark.parametrize("host", ["evil.example", "rebound.example:8080", ""])
async def test_public_status_is_called_by_the_nodes_names_only(host: str) -> None:
    async with gateway("data", services()) as client:
        for part in PUBLIC_PARTS:
            answer = await client.get(f"/public/data{part}", headers={"Host": host})
            assert (answer.status_code, answer.json()["code"]) == (403, "host-not-allowed")


@pytest.mark.parametrize("public", ["", "other", "DATA", " , "])
async def test_public_status_is_off_unless_set(tmp_path: Path, public: str) -> None:
    token, line = new_token("ada")
    (tmp_path / "tokens").write_text(line)
    own = {"Authorization": f"Bearer {token}"}
    async with gateway(public, services(), tokens_file=tmp_path / "tokens") as client:
        for part in PUBLIC_PARTS:
            closed = await client.get(f"/public/data{part}")
            unknown = await client.get("/no-such-path")
            assert (closed.status_code, unknown.status_code) == (401, 401)
            missing = await client.get(f"/public/data{part}", headers=own)
            unknown = await client.get("/no-such-path", headers=own)
            assert missing.status_code == unknown.status_code == 404
            assert missing.json()["code"] == unknown.json()["code"]
            assert missing.json()["detail"] == f"There is no GET /public/data{part} here."
            assert missing.headers.keys() == unknown.headers.keys()
