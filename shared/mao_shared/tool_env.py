"""The environment that a tool finds, the same in a run, in its record and in a reproduction: pure."""

from __future__ import annotations

from .models import Run, StepRun, format_time
from .models.run import time_in_id

HOME = "/tmp"  # noqa: S108 (the container's own; any uid can write there)


def tool_env(run: Run, step: StepRun) -> dict[str, str]:
    """All variables that are set on the step's container beside the image's own."""
    return {"HOME": HOME, **step.spec.env, **run_env(run, step)}


def run_env(run: Run, step: StepRun) -> dict[str, str]:
    """What a tool may know of its run. A reproduction says what the original said.

    A run that no tick asked for is for the moment at which it was asked for.
    """
    original = run.reproduces
    env = {
        "MAO_RUN_ID": run.id if original is None else original.run,
        "MAO_NODE": run.node,
        "MAO_PIPELINE": run.pipeline,
        "MAO_STEP": step.spec.name,
        "MAO_ATTEMPT": str(step.attempt if original is None else original.attempt),
    }
    asked = time_in_id(env["MAO_RUN_ID"]) or run.created_at.replace(microsecond=0)
    return {**env, "MAO_SCHEDULED_FOR": format_time(run.scheduled_for or asked)}
