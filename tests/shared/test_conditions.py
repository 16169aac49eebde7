"""The list of what does not hold: reported, changed, cleared."""

from __future__ import annotations

from mao_shared.conditions import Conditions
from mao_shared.models.condition import Condition


def test_report_keeps_since_and_tells_changes_only() -> None:
    told: list[Condition] = []
    conditions = Conditions()
    conditions.subscribe(told.append)
    conditions.report("disk", detail="1 MB free", next_step="Free space.")
    first = conditions.current()[0]
    conditions.report("disk", detail="1 MB free", next_step="Free space.")
    conditions.report("disk", detail="0 MB free", next_step="Free space.", state="failed")
    assert [each.detail for each in told] == ["1 MB free", "0 MB free"]
    assert conditions.current()[0].since == first.since


def test_current_lists_failed_first() -> None:
    conditions = Conditions()
    conditions.report("remote", "hub", detail="away", next_step="Wait.")
    conditions.report("store", detail="no space", next_step="Compact.", state="failed")
    assert [each.name for each in conditions.current()] == ["store", "remote"]


def test_clear_tells_ok_once() -> None:
    told: list[Condition] = []
    conditions = Conditions()
    conditions.report("clone", "hub", detail="broken", next_step="Wait.")
    conditions.subscribe(told.append)
    conditions.clear("clone", "hub")
    conditions.clear("clone", "hub")
    assert [(each.name, each.subject, each.state) for each in told] == [("clone", "hub", "ok")]
    assert conditions.current() == []
