"""`maoctl doctor` and `top`: the health of the node, what to do about failed checks, and its load."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import chain
from typing import TYPE_CHECKING, Annotated

import typer

from mao_shared.errors import MaoError, PeerUnavailable, Unavailable
from mao_shared.states import RunPhase
from maoctl.arguments import duration_option
from maoctl.exits import CommandError, ExitCode
from maoctl.output import CLEAR_SCREEN, is_redrawn, print_changes, say, write
from maoctl.session import CliSession, OutputOption, example, get_session
from maoctl.text import span
from maoctl.tree import App
from maoctl.views.federation import LOAD, Load
from maoctl.views.runs import ACTIVE_RUN, CHECK, CheckRow

if TYPE_CHECKING:
    from mao_shared.models import Run, node

POLL_SECONDS = 0.5  # between checks with --wait
DEFAULT_TIMEOUT = 60.0  # seconds
LOGS = "See the logs of the node's services."
WATCH_SECONDS, MIN_WATCH_SECONDS = 2.0, 0.2  # between two looks
CLOCK_TOLERANCE = timedelta(seconds=30)  # half the default start deadline of a schedule


@dataclass(frozen=True)
class HealthCheck:
    """The result of a check. `next`: what to do if it failed.

    `degraded`: the state to show in place of ok or failed, for a fault that does not stop the node.
    """

    name: str
    ok: bool
    detail: str = ""
    next: str = ""
    degraded: str = ""

    @property
    def fix(self) -> str:
        """What to do about it; empty if all is well."""
        return self.next or (LOGS if not self.ok or self.degraded else "")

    def row(self) -> CheckRow:
        return CheckRow(self.name, self.degraded or ("ok" if self.ok else "failed"), self.detail, self.fix)


def health_checks(status: node.NodeStatus, now: datetime) -> list[HealthCheck]:
    """Return the checks of a node's status; `now`: this machine's clock."""
    checks = []
    away = status.federation is not None and status.federation.reachable is False
    for condition in status.conditions:
        if away and condition.name == "quorum":  # the check of the federation says more
            continue
        ok, name = condition.state != "failed", f"{condition.name} {condition.subject}".rstrip()
        degraded = condition.state if ok else ""
        checks.append(HealthCheck(name, ok, condition.detail, condition.next, degraded))
    if not any(check.name == "store" for check in checks):
        ok = status.store == "ok"
        checks.append(HealthCheck("store", ok, *(() if ok else (status.store, "See etcd's log."))))
    checks += [_service(name, state) for name, state in status.services.items()]
    if "git" in status.model_fields_set:
        checks.append(_identity(status.git))
    if status.now is not None:
        checks.append(_clock(status.now - now))
    return checks if status.federation is None else [*checks, _federation(status.federation, now)]


def _service(name: str, state: node.ServiceStatus) -> HealthCheck:
    if state.ready:
        return HealthCheck(name, True)
    next_step = f"See the checks above, and the log of {name}."
    return HealthCheck(name, False, state.reason or "not ready", next_step)


def _identity(git: node.CommitIdentity | None) -> HealthCheck:
    if git is not None and git.name and git.email:
        return HealthCheck("git identity", True, f"{git.name} <{git.email}>")
    next_step = "Set gitusername and gitemail, and restart the node."
    return HealthCheck("git identity", False, "not set", next_step)


def _clock(offset: timedelta) -> HealthCheck:
    if abs(offset) <= CLOCK_TOLERANCE:
        return HealthCheck("clock", True)
    direction = "ahead of" if offset > timedelta(0) else "behind"
    return HealthCheck(
        "clock",
        False,
        f"{span(offset)} {direction} this machine",
        "Synchronise both clocks, for example by NTP.",
    )


def _federation(federation: node.FederationStatus, now: datetime) -> HealthCheck:
    """Return the check of the federation; only the removal of the node is a failure, an outage is not."""
    if federation.reachable is not False:
        return HealthCheck("federation", True, federation.name)
    if federation.removed:
        return HealthCheck("federation", False, federation.reason, federation.next)
    away = f" for {span(now - federation.since)}" if federation.since else ""
    detail = f"{federation.name}: unreachable{away}: {federation.reason}"
    return HealthCheck("federation", True, detail, federation.next, degraded="away")


def examine(session: CliSession) -> list[HealthCheck]:
    """Run all checks; if the gateway does not answer, only that check is returned."""
    try:
        status = session.client.status()
    except PeerUnavailable as error:
        return [HealthCheck("gateway", False, error.detail, error.next or "")]
    return [HealthCheck("gateway", True, session.config.url), *health_checks(status, session.now)]


def wait_until_healthy(
    session: CliSession, timeout: float, check_node: Callable[[CliSession], list[HealthCheck]] = examine
) -> list[HealthCheck]:
    """Wait until all checks pass, at most `timeout` seconds, and return the last checks."""
    deadline = time.monotonic() + timeout
    last = ""
    checks = check_node(session)
    while (failed := [check.name for check in checks if not check.ok]) and time.monotonic() < deadline:
        if (message := f"waiting for {', '.join(failed)}") != last:
            say(message)
            last = message
        session.pause(POLL_SECONDS)
        checks = check_node(session)
    return checks


def doctor(
    context: typer.Context,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Wait until all checks pass.")] = False,
    timeout: Annotated[float | None, duration_option("Longest wait [default: 60s].", "--timeout")] = None,
    output: OutputOption = None,
) -> None:
    """Check the node: gateway, services, store, engine and their dependencies."""
    session = get_session(context, output)
    checks = (
        wait_until_healthy(session, timeout if timeout is not None else DEFAULT_TIMEOUT)
        if wait
        else examine(session)
    )
    session.show(CHECK, [check.row() for check in checks])
    failed = [check for check in checks if not check.ok]
    fixes = [(check.name, check.fix) for check in [*failed, *(c for c in checks if c.ok)] if check.fix]
    advice = fixes[0][1] if len(fixes) == 1 else "\n      ".join(f"{name}: {fix}" for name, fix in fixes)
    if not failed:
        if advice:
            say(f"next: {advice}")
        return
    code = ExitCode.UNREACHABLE if failed[0].name == "gateway" else ExitCode.FAILED
    detail = f"{len(failed)} of {len(checks)} checks failed."
    raise CommandError(ExitCode.WAIT_TIMED_OUT if wait else code, detail, advice)


# Load


def measure_load(session: CliSession) -> tuple[Load, list[Run]]:
    """Return the load of the node and its runs that have not ended, the newest first."""
    client = session.client
    status = client.status()
    try:
        engine = client.engine()
    except MaoError as error:
        say(f"The engine's load is not known: {error.detail}")
        engine = None
    phases = (RunPhase.RUNNING, RunPhase.QUEUED)
    active = {phase: list(client.runs.list(phase=phase)) for phase in phases}
    runs = list(chain.from_iterable(active.values()))
    disk = status.disk
    load = Load(
        node=status.node,
        slots=engine.slots if engine else None,
        slots_used=engine.running if engine else None,
        cpus=engine.cpus if engine else None,
        memory=engine.memory if engine else None,
        disk_free=disk.free if disk else None,
        disk_total=disk.total if disk else None,
        running=len(active[RunPhase.RUNNING]),
        queued=len(active[RunPhase.QUEUED]),
        problems=len(status.conditions),
        runs=[run.id for run in runs],
    )
    return load, runs


def top(
    context: typer.Context,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Show it again and again.")] = False,
    interval: Annotated[
        float | None, duration_option("Time between two looks with --watch [default: 2s].", "--interval")
    ] = None,
    output: OutputOption = None,
) -> None:
    """Show the load of this node: slots, memory, disk, and the runs that have not ended."""
    session = get_session(context, output)
    if watch:
        watch_load(session, WATCH_SECONDS if interval is None else max(interval, MIN_WATCH_SECONDS))
    else:
        show_load(session, *measure_load(session))


def show_load(session: CliSession, load: Load, runs: list[Run]) -> None:
    """Print a load, with the runs in a table below it for people."""
    session.show_one(LOAD, load)
    if runs and session.output.for_people:
        write("\n")
        session.show(ACTIVE_RUN, runs)


def watch_load(session: CliSession, interval: float) -> None:
    """Show the load every `interval` seconds, until the user interrupts.

    On a terminal, each takes the place of the one before; elsewhere only one that differs is shown. Raises
    Unavailable if the node does not answer at the first look, or several times in a row.
    """
    from maoctl.follow import MAX_FAILURES

    last: object = None
    failures = 0
    while True:
        try:
            load, runs = measure_load(session)
        except Unavailable as error:
            failures += 1
            if last is None or failures > MAX_FAILURES:
                raise
            say(error.detail)
        else:
            failures = 0
            # Free space differs at each look, and would make each one differ.
            now = (replace(load, disk_free=None), [(run.id, run.phase) for run in runs])
            if is_redrawn():
                write(CLEAR_SCREEN)
            if is_redrawn() or now != last:
                _show_next_load(session, load, runs, is_first=last is None)
            last = now
        session.pause(interval)


def _show_next_load(session: CliSession, load: Load, runs: list[Run], *, is_first: bool) -> None:
    """Print a load below the one before: in JSON a line, in YAML a document."""
    if session.output.for_people:
        write("" if is_first or is_redrawn() else "\n")
        show_load(session, load, runs)
    else:
        print_changes(LOAD, [load], session.output, session.now, None)


def add_to(app: App) -> None:
    """Add the commands to the root."""
    app.command(epilog=example("maoctl doctor", "maoctl doctor --wait --timeout 60s"))(doctor)
    app.command(epilog=example("maoctl top", "maoctl top --watch", "maoctl top -o json"))(top)
