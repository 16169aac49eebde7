"""`maoctl doctor`: whether the node is well, and what to do if not."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from mao_shared.errors import PeerUnavailable
from maoctl.arguments import duration_option
from maoctl.exits import CommandError, ExitCode
from maoctl.output import say
from maoctl.session import CliSession, OutputOption, example, get_session
from maoctl.text import span
from maoctl.views.runs import CHECK, CheckRow

if TYPE_CHECKING:
    from mao_shared.models import node

PAUSE = 0.5  # seconds between two looks of --wait
DEFAULT_WAIT = 60.0  # seconds
CLOCK_TOLERANCE = timedelta(seconds=30)  # half the start deadline that a schedule has by default


@dataclass(frozen=True)
class HealthCheck:
    """One thing that has to be well; `next` is the command or step when it is not.

    `aside`: in one word, that it is degraded while the node continues with everything else.
    """

    name: str
    ok: bool
    detail: str = ""
    next: str = ""
    aside: str = ""

    def row(self) -> CheckRow:
        return CheckRow(self.name, self.aside or ("ok" if self.ok else "failed"), self.detail, self.next)


def health_checks(status: node.NodeStatus, now: datetime) -> list[HealthCheck]:
    """What the node's status says; only how its clock differs from this machine's is judged here."""
    away = status.federation is not None and status.federation.reachable is False  # shown below, since when
    checks = [_condition(each) for each in status.conditions if not (away and each.name == "quorum")]
    if not any(check.name == "store" for check in checks):
        ok = status.store == "ok"
        checks.append(HealthCheck("store", ok, *(() if ok else (status.store, "Look at etcd's log."))))
    checks += [_service(name, state) for name, state in status.services.items()]
    if "git" in status.model_fields_set:
        checks.append(_identity(status.git))
    if status.now is not None:
        checks.append(_clock(status.now - now))
    return checks if status.federation is None else [*checks, _federation(status.federation, now)]


def _condition(condition: node.NodeCondition) -> HealthCheck:
    failed = condition.state == "failed"
    name = f"{condition.name} {condition.subject}".rstrip()
    aside = "" if failed else condition.state
    return HealthCheck(name, not failed, condition.detail, condition.next, aside)


def _service(name: str, state: node.ServiceStatus) -> HealthCheck:
    if state.ready:
        return HealthCheck(name, True)
    next_step = f"See what is listed above; the log of {name} has details."
    return HealthCheck(name, False, state.reason or "not ready", next_step)


def _identity(git: node.CommitIdentity | None) -> HealthCheck:
    if git is not None and git.name and git.email:
        return HealthCheck("git identity", True, f"{git.name} <{git.email}>")
    next_step = "Set gitusername and gitemail, and start the node again."
    return HealthCheck("git identity", False, "not set", next_step)


def _clock(offset: timedelta) -> HealthCheck:
    if abs(offset) <= CLOCK_TOLERANCE:
        return HealthCheck("clock", True)
    direction = "ahead of" if offset > timedelta(0) else "behind"
    return HealthCheck(
        "clock", False, f"{span(offset)} {direction} this machine", "Synchronise both clocks, best by NTP."
    )


def _federation(federation: node.FederationStatus, now: datetime) -> HealthCheck:
    """One that is away is no fault of the node: its pipelines run, and it reconnects by itself. One that has
    removed the node is.
    """
    if federation.reachable is not False:
        return HealthCheck("federation", True, federation.name)
    if federation.removed:
        return HealthCheck("federation", False, federation.reason, federation.next)
    away = f" for {span(now - federation.since)}" if federation.since else ""
    detail = f"{federation.name}: unreachable{away}: {federation.reason}"
    return HealthCheck("federation", True, detail, federation.next, aside="away")


def examine(session: CliSession) -> list[HealthCheck]:
    """All checks; only the gateway's, failed, when that does not answer."""
    try:
        status = session.client.status()
    except PeerUnavailable as error:
        return [HealthCheck("gateway", False, error.detail, error.next or "")]
    return [HealthCheck("gateway", True, session.config.url), *health_checks(status, session.now)]


def wait_until_well(
    session: CliSession, seconds: float, look: Callable[[CliSession], list[HealthCheck]] = examine
) -> list[HealthCheck]:
    """The checks as soon as all are well, or as they are on timeout."""
    ends = time.monotonic() + seconds
    last = ""
    checks = look(session)
    while (failed := [check.name for check in checks if not check.ok]) and time.monotonic() < ends:
        if (news := f"waiting for {', '.join(failed)}") != last:
            say(news)
            last = news
        session.pause(PAUSE)
        checks = look(session)
    return checks


def doctor(
    context: typer.Context,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Wait until all is well.")] = False,
    timeout: Annotated[float | None, duration_option("Longest wait; else 60s.", "--timeout")] = None,
    output: OutputOption = None,
) -> None:
    """Check the node: gateway, services, store, engine and what they need."""
    session = get_session(context, output)
    checks = (
        wait_until_well(session, timeout if timeout is not None else DEFAULT_WAIT)
        if wait
        else examine(session)
    )
    session.show(CHECK, [check.row() for check in checks])
    failed = [check for check in checks if not check.ok]
    if not failed:
        return
    advice = next((check.next for check in failed if check.next), None)
    code = ExitCode.UNREACHABLE if failed[0].name == "gateway" else ExitCode.FAILED
    detail = f"{len(failed)} of {len(checks)} checks failed."
    raise CommandError(ExitCode.WAIT_TIMED_OUT if wait else code, detail, advice)


def add_to(app: typer.Typer) -> None:
    """Adds the command to the root."""
    app.command(epilog=example("maoctl doctor", "maoctl doctor --wait --timeout 60s"))(doctor)
