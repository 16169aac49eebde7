"""Every page that has a route: accessible in both widths and schemes, and readable without scripts.

The routes are read from the routers, so that a page which nobody looks at fails a test.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from fastapi.routing import APIRoute

from mao_gateway.pages.routers import PAGE_ROUTERS
from mao_gateway.pages.site import static_router
from mao_shared.models import Alarm
from mao_shared.models.federation import RunBrief
from mao_shared.states import RunPhase
from tests.support.node import NativeNode, native_node
from tests.support.reader import look_at, reading
from tests.vote.repo import TICK

from .samples import make_pipeline, run_once
from .test_first_run import catalogue_document
from .written import alarm, make_rounds, put_alarms, put_peer_runs

pytestmark = [pytest.mark.docker, pytest.mark.etcd, pytest.mark.browser]
OPEN_ALARMS = 100
MIN_TEXT = 60  # characters; a page of an error has about 80
COLLECT = """\
n=$(cat count 2>/dev/null || echo 0); echo $((n + 1)) > count
printf 'station,level\\ns1,%d\\ns2,9\\n' $n > levels.csv
"""
ROUND = f"{TICK:%Y%m%dT%H%M%SZ}-crawl-collect"
CELL = f"/ui/agreement/charts/{ROUND}/cell?file=d.csv&key=k1&field=v"
ADDRESSES: dict[str, dict[str, str]] = {
    "/": {"today": "/"},
    "/ui/welcome": {"welcome": "/ui/welcome", "welcome-run": "/ui/welcome?pipeline=rivers&run={run}"},
    "/ui/catalogue": {"catalogue": "/ui/catalogue"},
    "/ui/catalogue/{name}": {"entry": "/ui/catalogue/needs-root?source=lab"},
    "/ui/datasets": {"datasets": "/ui/datasets"},
    "/ui/datasets/{name}": {
        "dataset": "/ui/datasets/rivers?file=levels.csv&value_file=levels.csv&key=s1&field=level"
    },
    "/ui/datasets/{name}/commits/{commit}": {"commit": "/ui/datasets/rivers/commits/{commit}"},
    "/ui/runs": {"runs": "/ui/runs"},
    "/ui/runs/{run_id}": {
        "run": "/ui/runs/{run}",
        "run-failed": "/ui/runs/{failed}",
        "run-elsewhere": "/ui/runs/{elsewhere}?node=basel",
    },
    "/ui/pipelines": {"pipelines": "/ui/pipelines"},
    "/ui/pipelines/{name:title}": {"pipeline": "/ui/pipelines/rivers"},
    "/ui/agreement": {"agreement": "/ui/agreement"},
    "/ui/agreement/{dataset}": {"agreement-dataset": "/ui/agreement/charts"},
    "/ui/agreement/{dataset}/{round_id}": {"round": f"/ui/agreement/charts/{ROUND}"},
    "/ui/agreement/{dataset}/{round_id}/cell": {"cell": CELL},
    "/ui/alarms": {"alarms": "/ui/alarms"},
    "/ui/alarms/webhooks": {},  # leads to the alarms
    "/ui/federation": {"federation": "/ui/federation"},
    "/ui/audit": {"audit": "/ui/audit"},
    "/public/{dataset}": {"public": "/public/rivers"},
    "/public/{dataset}/badge.svg": {},  # an image
    "/public/{dataset}/style.css": {},
    "/ui/{rest:path}": {"missing": "/ui/no-such-page"},
}
ERRORS = {
    "error-run": ("/ui/runs/no-such-run", 404),
    "error-elsewhere": ("/ui/runs/no-such-run?node=basel", 404),
    "error-commit": ("/ui/datasets/rivers/commits/nothing", 422),
    "error-query": ("/?ticks=5", 422),
    "error-cell": (CELL.replace("k1", "no-such-record"), 404),
}
LOOKS = {name: address for addresses in ADDRESSES.values() for name, address in addresses.items()}


@dataclass(frozen=True)
class World:
    """A node with some of everything. `names`: what addresses contain."""

    node: NativeNode
    names: dict[str, str]

    def address(self, name: str) -> str:
        return LOOKS[name].format_map(self.names)


@pytest.fixture(scope="module")
def world(tool_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    root = tmp_path_factory.mktemp("every-page")
    catalogue = root / "lab.json"
    catalogue.write_text(json.dumps(catalogue_document(tool_image)))
    env = {"MAO_CATALOGUES": f"lab={catalogue}", "MAO_PUBLIC_STATUS": "rivers"}
    with native_node(root, env=env) as node:
        make_pipeline(
            node,
            root,
            "rivers",
            tool_image,
            {"collect": COLLECT},
            metrics=[{"name": "rows", "measure": "rows"}],
        )
        make_pipeline(node, root, "broken", tool_image, {"collect": "echo no answer from sensor 7; exit 3"})
        make_rounds(node, root, "charts", [_observed(), _observed()])
        first, run, failed = run_once(node, "rivers"), run_once(node, "rivers"), run_once(node, "broken")
        assert [first["phase"], run["phase"], failed["phase"]] == ["succeeded", "succeeded", "failed"]
        told = datetime.now(UTC) - timedelta(minutes=3)
        commit = run["steps"][0]["snapshot"]
        elsewhere = RunBrief(
            id=f"{told:%Y%m%dT%H%M%SZ}-rivers-0c8f11b7",
            trigger="schedule",
            phase=RunPhase.FAILED,
            scheduled_for=told,
            started_at=told,
            finished_at=told + timedelta(seconds=70),
            snapshots={"rivers": commit},
            reason="step collect failed: exit code 3",
        )
        asyncio.run(put_peer_runs(node, "basel", "rivers", [elsewhere]))
        asyncio.run(put_alarms(node, [_alarm(number) for number in range(OPEN_ALARMS)]))
        names = {"run": run["id"], "failed": failed["id"], "elsewhere": elsewhere.id, "commit": commit}
        yield World(node, names)


def _observed() -> dict[str, dict[str, str]]:
    table = "id,v\n" + "".join(f"k{number},{1000 + number}\n" for number in range(30))
    return {
        "basel": {"d.csv": table},
        "bern": {"d.csv": table.replace("k1,1001", "k1,7")},
        "zurich": {"d.csv": table},
    }


def _alarm(number: int) -> Alarm:
    kinds = ("run-failed", "spike", "run-missed", "disk", "unpushed")
    return alarm(
        f"20260131T12{number % 60:02}00Z-rivers-{number:08x}.open",
        kind=kinds[number % len(kinds)],
        pipeline="rivers" if number % 2 else None,
        subject=None if number % 2 else f"/srv/disk-{number}",
        detail=f"observation {number}: "
        + "the source answered with status 503 and no body. " * (number % 4 + 1),
        next="See the log of the run.",
    )


def test_every_page_is_looked_at() -> None:
    routes = {
        route.path
        for router in PAGE_ROUTERS
        if router is not static_router
        for route in router.routes
        if isinstance(route, APIRoute) and "GET" in (route.methods or ())
    }
    assert routes == set(ADDRESSES)


@pytest.mark.parametrize("name", LOOKS)
async def test_every_page_looks(world: World, name: str) -> None:
    address = world.address(name)
    status = 404 if name == "missing" else 200
    answer = await asyncio.to_thread(world.node.http.get, address, follow_redirects=True)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "text/html; charset=utf-8")
    async with reading(world.node.url) as reader:
        await look_at(reader, address, f"every-{name}", status=status)


@pytest.mark.parametrize("name", ERRORS)
async def test_every_page_of_errors_looks(world: World, name: str) -> None:
    address, status = ERRORS[name]
    assert (await asyncio.to_thread(world.node.http.get, address)).status_code == status
    async with reading(world.node.url) as reader:
        await look_at(reader, address, f"every-{name}", status=status)


async def test_every_page_reads_without_scripts(world: World) -> None:
    """What a browser shows without scripts is what it shows with them, but for what moves with the time."""
    async with reading(world.node.url, scripts=False) as reader:
        for name in LOOKS:
            page = await reader.open(world.address(name))
            main = page.locator("main")
            assert await main.locator("h1").count() == 1, name
            assert len(await main.inner_text()) > MIN_TEXT, name
            hidden = await main.locator("[hidden]").evaluate_all(
                "each => each.filter((one) => !one.matches('.busy, .earlier')).map((one) => one.outerHTML)"
            )
            assert hidden == [], name
            await page.close()
        reader.faults = [fault for fault in reader.faults if "status of 404" not in fault]


async def test_every_page_alarms_show_as_many_as_fit(world: World) -> None:
    async with reading(world.node.url) as reader:
        page = await reader.open("/ui/alarms")
        assert await page.locator("#open tbody tr").count() == 50
        assert "More are open" in await page.inner_text("#open")
        assert (await page.locator("#nav-alarms .count").inner_text()).split() == ["100+", "open"]
        assert "100+ open, the newest 50 are shown" in await page.inner_text("main")
