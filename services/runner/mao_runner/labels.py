"""How a container is named and labelled, and so found again: pure.

Two nodes on one machine share its engine: `mao.installation` tells their containers apart even where
both bear the same name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mao_shared.models import Run

INSTALLATION = "mao.installation"
NODE = "mao.node"
RUN = "mao.run"
STEP = "mao.step"
ATTEMPT = "mao.attempt"
PIPELINE = "mao.pipeline"
TOOL = "mao.tool"
CHECK = "mao.check"
HELPER = "mao.helper"  # a container that the runner itself makes use of, and the network of tools
USER = "mao.user"  # uid:gid, for the run's record


@dataclass(frozen=True, slots=True, order=True)
class Attempt:
    """One attempt of one step of a run: what a container is for."""

    run: str
    step: int
    attempt: int


def installation_labels(installation: str) -> dict[str, str]:
    """What all containers of this installation bear."""
    return {INSTALLATION: installation}


def container_name(node: str, key: Attempt) -> str:
    """Unique on the node; names and ids hold only what Docker's names may."""
    return f"mao-{node}-{key.run}-{key.step}-{key.attempt}"


def container_labels(installation: str, run: Run, key: Attempt) -> dict[str, str]:
    spec = run.steps[key.step].spec
    return {
        INSTALLATION: installation,
        NODE: run.node,
        RUN: run.id,
        STEP: str(key.step),
        ATTEMPT: str(key.attempt),
        PIPELINE: run.pipeline,
        TOOL: spec.tool,
    }


def attempt_of(labels: Mapping[str, str]) -> Attempt | None:
    """None when the labels are not those of a step's container."""
    run, step, attempt = (labels.get(name, "") for name in (RUN, STEP, ATTEMPT))
    if not (run and all(each.isdecimal() and len(each) < 10 for each in (step, attempt))):
        return None
    return Attempt(run, int(step), int(attempt))
