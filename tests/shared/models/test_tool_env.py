"""The environment variables of a tool."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from mao_shared.models import Run, StepRun
from mao_shared.models.run import Original, manual_run_id, tick_run_id, time_in_id, tool_env
from tests.runner.harness import step_spec

TICK = datetime(2031, 5, 1, 8, tzinfo=UTC)
ASKED = datetime(2031, 5, 1, 9, 30, 15, 987654, tzinfo=UTC)


def a_run(run_id: str, **fields: object) -> Run:
    base = {"pipeline": "p", "node": "n", "trigger": "manual", "created_at": ASKED, "steps": []}
    return Run.model_validate({"id": run_id, **base, **fields})


@pytest.mark.parametrize(
    ("run", "told"),
    [
        (a_run(tick_run_id("p", "n", TICK), scheduled_for=TICK, trigger="schedule"), "2031-05-01T08:00:00Z"),
        (a_run(manual_run_id("p", ASKED)), "2031-05-01T09:30:15Z"),
        (a_run(manual_run_id("p", ASKED), scheduled_for=TICK), "2031-05-01T08:00:00Z"),
        (a_run("made-by-hand"), "2031-05-01T09:30:15Z"),
        (
            a_run(
                manual_run_id("p", datetime(2032, 1, 1, tzinfo=UTC)),
                trigger="reproduce",
                reproduces=Original(run=manual_run_id("p", ASKED), step="t", snapshot="0" * 40),
            ),
            "2031-05-01T09:30:15Z",
        ),
    ],
)
def test_tool_env_always_says_what_time_it_is_for(run: Run, told: str) -> None:
    assert tool_env(run, StepRun(spec=step_spec()))["MAO_SCHEDULED_FOR"] == told


@pytest.mark.parametrize("run_id", ["x", "20310501T0930-p-00000000", "99999999T999999Z-p-0"])
def test_time_in_id_of_an_id_that_is_none_of_ours(run_id: str) -> None:
    assert time_in_id(run_id) is None
