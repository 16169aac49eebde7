"""Conditions are reported, changed, cleared and passed to all subscribers."""

from __future__ import annotations

import ast
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mao_shared import keys
from mao_shared.conditions import MAX_SHOWN, MORE, NAMES, Conditions, conditions_of
from mao_shared.models import Alarm
from mao_shared.models.node import Condition, ConditionState
from mao_shared.reconcile import background
from mao_shared.service.alarms import ConditionAlarms
from mao_shared.store import Records, Store
from mao_shared.store.memory import MemoryStore
from mao_shared.web.health import with_checks
from tests.support.waiting import eventually_answers

from .service.test_app import answers, client_of, make_app

REPO = Path(__file__).parents[2]


@asynccontextmanager
async def memory_store() -> AsyncIterator[MemoryStore]:
    store = MemoryStore()
    yield store
    await store.close()


async def listed(store: Store) -> list[Alarm]:
    """Return the stored alarms about conditions."""
    records = Records(store, keys.condition_alarms_prefix("node-1"), Alarm)
    return [entry.record for entry in await records.all()]


def test_report_keeps_since_and_tells_changes_only() -> None:
    told: list[Condition] = []
    conditions = Conditions()
    conditions.subscribe(told.append)
    conditions.report("disk", detail="1 MB free", next_step="Free space.")
    first = conditions.current()[0]
    conditions.report("disk", detail="1 MB free", next_step="Free space.")
    conditions.report("disk", detail="0 MB free", next_step="Free space.", state="failed")
    assert [condition.detail for condition in told] == ["1 MB free", "0 MB free"]
    assert conditions.current()[0].since == first.since


def test_current_lists_failed_first() -> None:
    conditions = Conditions()
    conditions.report("remote", "hub", detail="away", next_step="Wait.")
    conditions.report("store", detail="no space", next_step="Compact.", state="failed")
    assert [condition.name for condition in conditions.current()] == ["store", "remote"]


def test_clear_tells_ok_once() -> None:
    told: list[Condition] = []
    conditions = Conditions()
    conditions.report("clone", "hub", detail="broken", next_step="Wait.")
    conditions.subscribe(told.append)
    conditions.clear("clone", "hub")
    conditions.clear("clone", "hub")
    assert [(condition.name, condition.subject, condition.state) for condition in told] == [
        ("clone", "hub", "ok")
    ]
    assert conditions.current() == []


def test_conditions_further_ones_of_a_name_are_counted_and_never_vanish() -> None:
    conditions = Conditions()
    told: list[Condition] = []
    conditions.subscribe(told.append)
    for number in range(MAX_SHOWN + 5):
        state: ConditionState = "failed" if number == MAX_SHOWN + 1 else "degraded"
        conditions.report("record-unreadable", f"/key/{number}", detail="odd", next_step="Look.", state=state)
    conditions.report("disk", detail="full", next_step="Free space.")
    assert len(conditions.current()) == MAX_SHOWN + 2
    [more] = [condition for condition in conditions.current() if condition.subject == MORE]
    assert (more.state, more.detail.split()[:3]) == ("failed", ["and", "5", "more"])
    conditions.clear("record-unreadable", f"/key/{MAX_SHOWN + 1}")
    [more] = [condition for condition in conditions.current() if condition.subject == MORE]
    assert (more.state, more.detail.split()[:3]) == ("degraded", ["and", "4", "more"])
    conditions.clear_all_but("record-unreadable", ["/key/3"])
    assert {(condition.name, condition.subject) for condition in conditions.current()} == {
        ("record-unreadable", "/key/3"),
        ("disk", ""),
    }
    assert told[-1].state == "ok"


def test_conditions_long_subject_is_cut_and_found_again() -> None:
    conditions = Conditions()
    conditions.report("record-unreadable", "/k" * 400, detail="odd", next_step="Look.")
    assert len(conditions.current()[0].subject) == 500
    conditions.clear("record-unreadable", "/k" * 400)
    assert conditions.current() == []


def test_conditions_failing_listener_blocks_no_report() -> None:
    told: list[str] = []

    def fails(_: Condition) -> None:
        raise KeyError("internals")

    conditions = Conditions()
    conditions.subscribe(fails)
    conditions.subscribe(lambda condition: told.append(condition.state))
    conditions.report("disk", detail="full", next_step="Free space.")
    conditions.clear("disk")
    assert told == ["degraded", "ok"]


# Every condition that is reported appears everywhere, under a documented name.


REPORTING = ("report", "clear", "clear_all_but")  # methods


def reported_names() -> dict[str, set[str]]:
    """Return the source files that report or clear each condition, by name (literal or module constant)."""
    found: dict[str, set[str]] = {}
    for file in [*REPO.glob("shared/**/*.py"), *REPO.glob("services/**/*.py"), *REPO.glob("node/**/*.py")]:
        text = file.read_text()
        if not any(f".{name}(" in text for name in REPORTING):
            continue
        tree = ast.parse(text)
        constants = {
            target.id: node.value.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for node in ast.walk(tree):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args):
                continue
            owner = ast.unparse(node.func.value)
            owned = owner == "own" or "condition" in owner.lower()
            if not owned or node.func.attr not in REPORTING:
                continue
            first = node.args[0]
            name = first.value if isinstance(first, ast.Constant) else constants.get(ast.unparse(first))
            if isinstance(name, str):
                found.setdefault(name, set()).add(file.name)
    return found


def test_conditions_every_reported_name_is_in_the_list_and_on_the_page() -> None:
    found = reported_names()
    assert {"store", "disk", "engine", "service", "store-reset", "step-stuck"} <= found.keys()
    assert found.keys() <= NAMES.keys(), found
    page = (REPO / "docs" / "operations.md").read_text().partition("## What each means")[2]
    page = page.partition("\n## ")[0]
    rows = {line.split("`")[1] for line in page.splitlines() if line.startswith("| `")}
    assert rows == NAMES.keys()


@pytest.mark.parametrize("state", ["failed", "degraded"])
@pytest.mark.parametrize("name", sorted(NAMES))
async def test_conditions_appear_in_readyz_conditions_metrics_and_alarms(
    name: str, state: ConditionState
) -> None:
    """Dashboard and doctor read `/readyz`: see tests/gateway/test_app.py, tests/cli/test_doctor.py."""
    app = make_app(store=answers)
    conditions = conditions_of(app)
    async with memory_store() as store, client_of(app) as client:
        alarms = ConditionAlarms("toolbox", "node-1", store, conditions, settle=0, calm=0)
        async with background(alarms.run()):
            conditions.report(name, "sub/ject", detail="It is so.", next_step="Do this.", state=state)
            await eventually_answers(lambda: listed(store))
            ready = await client.get("/readyz")
            told = (await client.get("/conditions")).json()["items"]
            metrics = (await client.get("/metrics")).text
            [alarm] = await listed(store)
            conditions.clear(name, "sub/ject")
            assert (await client.get("/readyz")).status_code == 200
    assert ready.status_code == (503 if state == "failed" else 200)
    assert (f"{name} sub/ject" in ready.json()["checks"]) == (state == "failed")
    assert [condition["name"] for condition in ready.json()["conditions"]] == [name]
    assert [(condition["name"], condition["subject"], condition["state"]) for condition in told] == [
        (name, "sub/ject", state)
    ]
    assert f'mao_condition{{name="{name}",state="{state}",subject="sub/ject"}} 1.0' in metrics
    assert f'mao_conditions{{state="{state}"}} 1.0' in metrics
    assert (alarm.kind, alarm.subject, alarm.detail, alarm.next) == (
        name,
        "sub/ject",
        "It is so.",
        "Do this.",
    )


@pytest.mark.parametrize(
    ("probe", "reported", "wanted"),
    [
        ("store", None, [("store", "")]),
        ("engine", None, [("engine", "")]),
        ("data directory", None, [("engine", "data directory")]),
        ("runner", None, []),  # a service of the gateway's, which tells of it by itself
        ("engine", ("engine", "failed"), [("engine", "")]),
        ("engine", ("engine", "degraded"), [("engine", ""), ("engine", "")]),
        ("store", ("disk", "failed"), [("store", ""), ("disk", "")]),
    ],
)
def test_conditions_probe_result_is_shown_before_any_report(
    probe: str, reported: tuple[str, ConditionState] | None, wanted: list[tuple[str, str]]
) -> None:
    conditions = Conditions()
    if reported is not None:
        conditions.report(reported[0], detail="So.", next_step="Do this.", state=reported[1])
    now = datetime(2026, 1, 31, tzinfo=UTC)
    found = with_checks({probe: "no answer", "other": "ok"}, conditions.current(), now)
    assert [(condition.name, condition.subject) for condition in found] == wanted
    assert {condition.name for condition in found} <= NAMES.keys()
    assert with_checks({probe: "ok"}, conditions.current(), now) == conditions.current()
