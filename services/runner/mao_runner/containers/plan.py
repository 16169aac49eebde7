"""Decides the next action for a step from its document and its container (pure).

                   container: none      created     running                 exited
ready     granted  → Begin           (ready and starting, while the network is not usable → AwaitNetwork)
starting           → Launch   → Launch    → NoteRunning           → RecordOutcome
running            → Confirm  → Confirm   → Watch | Stop | Kill   → RecordOutcome
cancelled before it runs: ready, starting without a running container → Cancel
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from mao_runner.drivers.protocol import Container
from mao_shared.models import Run, StepRun
from mao_shared.states import StepPhase

RUNNER_PHASES = frozenset({StepPhase.READY, StepPhase.STARTING, StepPhase.RUNNING})
HOLDS_SLOT = frozenset({StepPhase.STARTING, StepPhase.RUNNING})
KILL_RETRY = 5.0  # seconds after a SIGKILL that had no effect yet


@dataclass(frozen=True, slots=True)
class StepObservation:
    """The state of a step when its next action is decided.

    Attributes:
        now: for a running step, when it was first seen running plus the monotonic time since then, so that a
            change of the system clock does not end a tool.
        engine: the container mirror is in sync.
        network: a container may start on the step's network now.
        parked: the step was `starting`, and gave up its slot when its network became unusable.
        granted: the step may take a slot.
        ahead: number of runs that get a slot before it.
        stopped_at: when this process sent SIGTERM.
    """

    step: StepRun
    cancelled: bool
    container: Container | None
    now: datetime
    engine: bool = True
    network: bool = True
    parked: bool = False
    granted: bool = False
    ahead: int = 0
    stopped_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class AwaitSlot:
    ahead: int


@dataclass(frozen=True, slots=True)
class AwaitEngine:
    """The engine does not answer."""


@dataclass(frozen=True, slots=True)
class AwaitNetwork:
    """No container may start on the step's network yet."""


@dataclass(frozen=True, slots=True)
class Begin:
    """Write `starting`."""


@dataclass(frozen=True, slots=True)
class Launch:
    """Create and start the container."""


@dataclass(frozen=True, slots=True)
class NoteRunning:
    """Write `running`."""

    container: Container


@dataclass(frozen=True, slots=True)
class Watch:
    """Nothing to do for `seconds`, unless an event comes."""

    container: Container
    seconds: float


@dataclass(frozen=True, slots=True)
class Stop:
    """Send SIGTERM; decide again after `grace` seconds."""

    container: Container
    grace: float


@dataclass(frozen=True, slots=True)
class Kill:
    container: Container


@dataclass(frozen=True, slots=True)
class RecordOutcome:
    """Write the outcome of the ended container."""

    container: Container


@dataclass(frozen=True, slots=True)
class Confirm:
    """The container seems to be gone: query the engine, then write `lost`."""


@dataclass(frozen=True, slots=True)
class Cancel:
    """Write `cancelled`; remove a container that was only created."""

    container: Container | None


@dataclass(frozen=True, slots=True)
class Ignore:
    """The step belongs to another service."""


Action = (
    AwaitSlot
    | AwaitEngine
    | AwaitNetwork
    | Begin
    | Launch
    | NoteRunning
    | Watch
    | Stop
    | Kill
    | RecordOutcome
    | Confirm
    | Cancel
    | Ignore
)


def decide(view: StepObservation) -> Action:
    """Return the next action; after it the step is observed and decided again."""
    if view.step.phase not in RUNNER_PHASES:
        return Ignore()
    if view.step.phase is StepPhase.READY:
        return _ready(view)
    if not view.engine:
        return AwaitEngine()
    if view.container is not None and view.container.state == "exited":
        return RecordOutcome(view.container)
    if view.step.phase is StepPhase.STARTING:
        return _starting(view)
    return _running(view)


def _ready(view: StepObservation) -> Action:
    if view.cancelled:
        return Cancel(None)
    if not view.engine:
        return AwaitEngine()
    if not view.network:
        return AwaitNetwork()
    return Begin() if view.granted else AwaitSlot(view.ahead)


def _starting(view: StepObservation) -> Action:
    if view.container is not None and view.container.state == "running":
        return NoteRunning(view.container)
    if view.cancelled:
        return Cancel(view.container)
    if not view.network:
        return AwaitNetwork()
    return AwaitSlot(view.ahead) if view.parked and not view.granted else Launch()


def _running(view: StepObservation) -> Action:
    container = view.container
    if container is None or container.state == "created":
        return Confirm()
    grace = view.step.spec.limits.grace
    if view.stopped_at is not None:
        left = grace - (view.now - view.stopped_at).total_seconds()
        return Watch(container, left) if left > 0 else Kill(container)
    left = min((deadline(view.step) - view.now).total_seconds(), view.step.spec.limits.time)
    if view.cancelled or left <= 0:
        return Stop(container, grace)
    return Watch(container, left)


def deadline(step: StepRun) -> datetime:
    """Return when the step's time limit ends, counted from its document so that it survives restarts."""
    return step.times[StepPhase.RUNNING] + timedelta(seconds=step.spec.limits.time)


WaitKind = Literal["slot", "engine", "network", "agreement"]


def waiting_reason(kind: WaitKind, detail: str = "") -> str:
    """Return the text of `step.waiting`."""
    match kind:
        case "engine":
            return "waits for the container engine, which does not answer"
        case "network":
            return f"waits until the tools' network is isolated from this host ({detail})"
        case "agreement":
            return "waits for the registry, which has not yet written what this node agreed to run"
        case "slot":
            return f"waits for a free slot ({detail} ahead of it)"


def is_same_reason(waiting: str | None, reason: str) -> bool:
    """Return True if `reason` is already written; details in parentheses are ignored."""
    return waiting is not None and waiting.split("(")[0] == reason.split("(")[0]


def runner_step(run: Run) -> int | None:
    """Return the index of the run's active step if it is in a phase of the runner, else None."""
    index = run.active_step()
    return index if index is not None and run.steps[index].phase in RUNNER_PHASES else None
