"""*Agreement*: rounds of a real repository as grid and list, and a contested cell explained by clicks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from mao_gateway.pages.agreement.cell import cell_row, number_of, typed_key, view_cell
from mao_gateway.pages.agreement.grid import make_grid, open_words
from mao_gateway.pages.agreement.rounds import rank_rows
from mao_gateway.pages.formats import Clock
from mao_shared import keys
from mao_shared.models import Round
from mao_shared.models.evidence import (
    ContestedCell,
    Explanation,
    FieldEvidence,
    NodeGroup,
    RankedNode,
    Ranking,
    RoundSummary,
)
from mao_shared.models.round import Abstention, LiveRound
from mao_shared.store import Records, open_store
from mao_vote.explain import key_readings
from tests.support.node import NativeNode
from tests.support.reader import layout_faults, look_at, reading
from tests.vote.repo import TICK, Files, new_repository, vote

from .written import make_rounds

CLOCK = Clock(TICK, ZoneInfo("UTC"))
HOSTILE = "<img src=x onerror=alert(1)>\x1b[2J\u202eevil"
ENDLESS = "x" * 300
COMMIT = "c" * 40


def summary(number: int, differing: Mapping[str, int], abstained: Mapping[str, str] = {}) -> RoundSummary:
    tick = TICK + timedelta(days=number)
    return RoundSummary(
        round=f"{tick:%Y%m%dT%H%M%SZ}-p-s",
        tick=tick,
        commit=COMMIT,
        nodes=len(differing) + len(abstained),
        voters=len(differing),
        files=1,
        cells=sum(differing.values()),
        conflicts=0,
        differing=dict(differing),
        abstained=dict(abstained),
    )


def live(number: int, **fields: Any) -> LiveRound:
    tick = TICK + timedelta(days=number)
    given: dict[str, Any] = {
        "dataset": "data",
        "id": f"{tick:%Y%m%dT%H%M%SZ}-p-s",
        "pipeline": "p",
        "step": "s",
        "tick": tick,
        "nodes": ["a", "b", "c"],
        "opened_by": "a",
        "opened_at": tick,
        "deadline": tick + timedelta(hours=1),
        "needed_nodes": 2,
        "announced": {},
        "silent": [],
        "computed": {},
        "missing": {},
    }
    return LiveRound(**given | fields)


# the grid


def test_make_grid_shows_each_node_in_each_round() -> None:
    decided = [
        summary(2, {"a": 0, "b": 3}, {"c": "late"}),
        summary(1, {"a": 0, "b": 0, "c": 0}),
        summary(0, {"a": 0, "b": 0}, {"c": "unreadable"}),
    ]
    undecided = live(
        3,
        phase="undecided",
        reason="too few",
        commits={"a": COMMIT},
        abstained={"b": Abstention(reason="absent")},
    )
    opened = live(4, announced={"a": COMMIT, "b": None}, silent=["c"])
    known_twice = live(2, phase="decided")
    other = live(5).changed(dataset="other")
    grid = make_grid("data", decided, [opened, undecided, known_twice, other], 30, CLOCK)  # type: ignore[list-item]
    assert [column.state for column in grid.columns] == [
        "decided",
        "decided",
        "contested",
        "undecided",
        "open",
    ]
    shown = {row.node: [mark.state if mark else None for mark in row.marks] for row in grid.rows}
    assert shown == {
        "a": ["agreed", "agreed", "agreed", "announced", "announced"],
        "b": ["agreed", "agreed", "differed", "absent", "failed"],
        "c": ["failed", "agreed", "late", "absent", "waits"],
    }
    assert [(row.agreed, row.voted) for row in grid.rows] == [(3, 3), (2, 3), (1, 1)]
    assert (grid.decided, [found.id for found in grid.open]) == (3, [opened.id])
    assert [column.label for column in grid.columns] == ["31", "1", "2", "3", "4"]
    assert [row.marks[2].href for row in grid.rows if row.marks[2]] == [
        None,
        "/ui/agreement/data/20260202T120000Z-p-s",
        "/ui/agreement/data/20260202T120000Z-p-s",
    ]


@pytest.mark.parametrize("count", [1, 2, 30])
def test_make_grid_keeps_the_newest_rounds(count: int) -> None:
    decided = [summary(number, {"a": 0}) for number in (2, 0, 1)]
    grid = make_grid("data", decided, [], count, CLOCK)
    assert [column.tick.day for column in grid.columns] == [31, 1, 2][-count:]
    assert make_grid("data", [], [], count, CLOCK).columns == []


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, "Nobody has announced a snapshot yet. 2 of 3 are enough."),
        (
            {"announced": {"a": COMMIT, "b": None}, "silent": ["c"]},
            "a announced its snapshot; b has none; c was not heard yet. 2 of 3 are enough.",
        ),
        (
            {"announced": {"a": COMMIT, "b": COMMIT}, "silent": ["c"], "waits_for": "r0"},
            "a and b announced their snapshots; c was not heard yet. 2 of 3 are enough. "
            "It waits for round r0.",
        ),
        (
            {"phase": "closed", "commits": {"a": COMMIT, "b": COMMIT, "c": COMMIT}},
            "a, b and c announced their snapshots. The nodes compute the result; 2 of 3 must agree on it.",
        ),
    ],
)
def test_open_words(fields: dict[str, Any], expected: str) -> None:
    assert open_words(live(0, **fields)) == expected


def test_rank_rows_share_a_scale() -> None:
    def ranked(node: str, rate: float, others: float | None) -> RankedNode:
        return RankedNode(
            node=node, cells=100, differing=int(100 * rate), rate=rate, others=others, excess=0, chance=1,
            strange=False, voted=1, abstained=0,
        )  # fmt: skip

    rows, top = rank_rows(Ranking(rounds=1, items=[ranked("a", 0.2, 0.05), ranked("b", 0.05, None)]))
    assert ([(row.at, row.others_at) for row in rows], top) == ([(120.0, 30.0), (30.0, None)], 0.2)
    assert rank_rows(Ranking(rounds=0, items=[])) == ([], 0.01)
    assert rank_rows(Ranking(rounds=1, items=[ranked("a", 0.0, 0.0)]))[0][0].at == 0


# a cell


def explanation(**fields: Any) -> Explanation:
    given: dict[str, Any] = {
        "round": "r",
        "commit": COMMIT,
        "file": "d.csv",
        "key": ["k"],
        "field": "v",
        "values": {"a": "1204", "b": "1211", "c": "1387"},
        "chosen": "1204",
        "why": "tolerance",
        "contested": True,
        "words": "it is in the largest group",
    }
    return Explanation(**given | fields)


def evidence_of(tmp_path: Path) -> Any:
    clone = new_repository(tmp_path / "r.git")
    return vote(clone, {"a": {"x": "1"}, "b": {"x": "1"}}).evidence


NUMBERS = FieldEvidence(name="v", kind="number", source="inferred", error=0.05, noise="estimated")


def test_view_cell_numbers(tmp_path: Path) -> None:
    found = explanation(
        compared=NUMBERS,
        observed=3,
        silent={"d": "has no such record"},
        groups=[NodeGroup(nodes=["a", "b"], declared=True)],
    )
    view = view_cell("data", found, evidence_of(tmp_path))
    assert [(row.node, row.state, row.against) for row in view.rows] == [
        ("a", "chosen", "chosen"),
        ("b", "agrees", "+0.6 %, agrees"),
        ("c", "differs", "+15.2 %"),
        ("d", "silent", "has no such record"),
    ]
    assert [step.name for step in view.why] == ["tolerance", "said", "observed", "compared", "one voice"]
    assert view.why[1].text == "1204 by 1, 1211 by 1, 1387 by 1, of 3 nodes with this record"
    assert "at most 5 % (estimated from the field's noise)" in view.why[3].text
    assert view.picture is not None
    assert [view.picture.count(kind) for kind in ("dot-ok", "dot-s", "dot-warn", "band2")] == [1, 1, 1, 1]
    assert view.line == "maoctl vote show data r --cell d.csv k v"


@pytest.mark.parametrize(
    ("values", "chosen"),
    [
        ({"a": "MIT", "b": "GPL"}, "MIT"),
        ({"a": "1", "b": "1"}, "1"),
        ({"a": "nan", "b": "inf", "c": "1"}, "1"),
        ({"a": None, "b": "1"}, None),
        ({"a": "1e308", "b": "-1e308"}, "1e308"),
        ({"a": "5e-324", "b": "0"}, "0"),
        ({}, None),
    ],
)
def test_view_cell_without_a_picture(tmp_path: Path, values: Any, chosen: str | None) -> None:
    view = view_cell("data", explanation(values=values, chosen=chosen), evidence_of(tmp_path))
    assert view.picture is None
    assert {row.node for row in view.rows} == set(values)


@pytest.mark.parametrize("chosen", ["-5", "0", "3.5", "1e15"])
def test_view_cell_picture_of_any_numbers(tmp_path: Path, chosen: str) -> None:
    values = {"a": chosen, "b": "-5.1", "c": "7", "d": "text"}
    view = view_cell(
        "data", explanation(values=values, chosen=chosen, compared=NUMBERS), evidence_of(tmp_path)
    )
    assert view.picture is not None
    places = [float(place) for place in re.findall(r'd="M([-\d.]+) [\d.]+h0"', view.picture)]
    assert all(0 <= place <= 1000 for place in places)


@pytest.mark.parametrize("key", [["k"], ["a", "b"], ["a,b"], ["a,b", "c"], ["[x"], ['"', "\\"], []])
def test_typed_key_is_read_back(key: list[str]) -> None:
    assert key in key_readings(typed_key(key))


@pytest.mark.parametrize(
    ("text", "number"), [("1", 1.0), (" 2.5 ", 2.5), ("nan", None), ("inf", None), ("x", None), (None, None)]
)
def test_number_of(text: str | None, number: float | None) -> None:
    assert number_of(text) == number


def test_cell_row_names_those_that_differ() -> None:
    values: dict[str, str | None] = {f"n{number}": str(number % 2) for number in range(12)}
    cell = ContestedCell(
        file="f", key=["k"], field="v", values=values, chosen="1", why="majority", contested=True
    )
    assert cell_row(cell).differed == "n0, n10, n2, n4 and 2 more"
    assert cell_row(cell.model_copy(update={"chosen": None, "why": "undecided"})).undecided


# in a browser


def rows(bad: int = 0, more: str = "") -> Files:
    lines = [f"k{number},{-number - 1 if number < bad else 1000 + number}" for number in range(80)]
    return {"d.csv": "id,v\n" + "\n".join(lines) + f"\n{more}"}


@pytest.fixture(scope="module")
def charts(node: NativeNode, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A dataset with three decided rounds, in the last of which a node differs in 60 cells."""
    agreed = dict.fromkeys(("basel", "bern", "zurich"), rows())
    versions = [agreed, {**agreed, "bern": rows(3)}, {**agreed, "bern": rows(60)}]
    make_rounds(node, tmp_path_factory.mktemp("rounds"), "charts", versions)
    return "charts"


async def add_undecided_round(node: NativeNode, dataset: str) -> None:
    ended = Round(
        dataset=dataset,
        id="20260131T150000Z-crawl-collect",
        pipeline="crawl",
        step="collect",
        tick=TICK + timedelta(hours=3),
        nodes=["basel", "bern", "zurich"],
        phase="undecided",
        opened_by="bern",
        opened_at=TICK,
        deadline=TICK,
        ended_at=datetime.now(UTC),
        reason="1 of 3 nodes, 2 are needed",
        commits={"bern": COMMIT},
        abstained={"basel": Abstention(reason="absent")},
    )
    store = open_store(node.etcd)
    try:
        await Records(store, keys.rounds_prefix(dataset), Round).create(ended.id, ended)
    finally:
        await store.close()


async def test_agreement_contested_cell_is_explained_by_clicks(node: NativeNode, charts: str) -> None:
    await add_undecided_round(node, charts)
    async with reading(node.url) as reader:
        page = await reader.open("/")
        await page.click("nav >> text=Agreement")
        await page.click("table >> text=charts")
        await page.wait_for_selector(".grid-rounds")
        grid = page.locator(".grid-rounds tbody tr")
        assert await grid.count() == 4
        assert "1 of 3" in await grid.nth(1).inner_text()
        assert "undecided: 1 of 3 nodes" in await page.locator("tr.truth").inner_text()
        assert "strange" in await page.locator("#ranking tr", has_text="bern").inner_text()
        await page.click("tr.truth a[href$='T140000Z-crawl-collect']")
        await page.wait_for_selector("text=Cells on which nodes differed")
        assert await page.locator(".cells tbody tr").count() == 50
        await page.click("text=more cells")
        await page.wait_for_selector("text=first cells")
        assert await page.locator(".cells tbody tr").count() == 10
        await page.click("text=first cells")
        await page.click(".cells a[title='k7']")
        await page.wait_for_selector("text=Why this one")
        said = await page.inner_text("main")
        assert "1007 was taken: more than half of the nodes that voted have this value." in said
        assert "1007 by 2, -8 by 1, of 3 nodes with this record" in said
        assert await page.locator("tr.chosen").count() == 2
        assert "maoctl vote show charts 20260131T140000Z-crawl-collect --cell d.csv k7 v" in said
        await page.click(".crumbs >> text=round of")
        await page.click("button:text('Audit')")
        await page.wait_for_selector("text=the same commit came out")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("", "list"),
        ("/charts", "dataset"),
        ("/charts/latest", "round"),
        ("/charts/latest/cell?file=d.csv&key=k7&field=v", "cell"),
    ],
)
async def test_agreement_pages_are_accessible(node: NativeNode, charts: str, path: str, name: str) -> None:
    async with reading(node.url) as reader:
        await look_at(reader, f"/ui/agreement{path}", f"agreement-{name}")


async def test_agreement_hostile_names_and_values_stay_text(node: NativeNode, tmp_path: Path) -> None:
    odd, fine = f'{ENDLESS},{ENDLESS}\n"{HOSTILE}","{HOSTILE}"\n', f'{ENDLESS},1\n"{HOSTILE}",2\n'
    hostile_file = f"{HOSTILE[:28]}.csv".replace("/", "")
    versions = {
        node_name: {"d.csv": f"id,v\n{text}a,1\n", hostile_file: f"id,{HOSTILE}\n1,{len(text)}\n"}
        for node_name, text in (("n1", fine), ("n2", fine), (f"n-{'x' * 40}", odd))
    }
    make_rounds(node, tmp_path, "hostile", [versions])
    async with reading(node.url) as reader:
        await look_at(reader, "/ui/agreement/hostile", "agreement-hostile")
        await look_at(reader, "/ui/agreement/hostile/latest", "agreement-hostile-round")
        page = await reader.open("/ui/agreement/hostile/latest")
        assert await page.locator("img").count() == 0
        find = "each => each.map((a) => a.getAttribute('href'))"
        addresses = await page.locator(".cells a").evaluate_all(find)
        assert len(addresses) == 3
        for address in addresses:
            page = await reader.open(address, width=390)
            await page.wait_for_selector("text=Why this one")
            assert await layout_faults(page) == []


async def test_agreement_without_scripts_and_without_rounds(node: NativeNode, tmp_path: Path) -> None:
    master = new_repository(tmp_path / "empty.git")
    assert node.http.put("/datasets/empty", json={"name": "empty", "master": str(master.path)}).is_success
    async with reading(node.url, scripts=False) as reader:
        page = await reader.open("/ui/agreement")
        await page.click("footer >> text=empty")
        assert "No round yet" in await page.inner_text("main")
        for path in ("empty/latest", "no-such-dataset", "empty/latest/cell?file=d.csv"):
            page = await reader.context.new_page()
            answer = await page.goto(f"/ui/agreement/{path}")
            assert answer is not None
            assert answer.status == 404
            assert await page.locator("h1").inner_text() == "Not found"
