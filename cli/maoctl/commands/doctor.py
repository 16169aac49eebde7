"""`maoctl doctor`: is the node well, and what to do if not."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any

import typer

from maoctl import views
from maoctl.arguments import duration_option
from maoctl.exits import CommandError, ExitCode
from maoctl.output import say
from maoctl.session import CliSession, OutputOption, example, session_of
from maoctl.text import parse_time, span

PAUSE = 0.5  # seconds between two looks of --wait
DEFAULT_WAIT = 60.0  # seconds
CLOCK_TOLERANCE = timedelta(seconds=30)  # half the start deadline that a schedule has by default


@dataclass(frozen=True)
class HealthCheck:
    """One thing that has to be well; `next` is the command or step when it is not.

    `aside`: in one word, that it is not well and that the node goes on with all else.
    """

    name: str
    ok: bool
    detail: str = ""
    next: str = ""
    aside: str = ""

    def record(self) -> dict[str, Any]:
        state = self.aside or ("ok" if self.ok else "failed")
        return {"name": self.name, "state": state, "detail": self.detail, "next": self.next}


def checks_of(status: dict[str, Any], now: datetime) -> list[HealthCheck]:
    """What the node's `/status` says; judged here is only how its clock differs from this machine's."""
    away = (status.get("federation") or {}).get("reachable") is False  # told below, with since when
    listed = status.get("conditions") or []
    told = [_condition(each) for each in listed if not (away and each.get("name") == "quorum")]
    if "store" in status and not any(check.name == "store" for check in told):
        told.append(_store(str(status["store"])))
    for service, state in (status.get("services") or {}).items():
        told.append(_service(service, state))
    optional = (_identity(status), _clock(status, now), _federation(status, now))
    return told + [check for check in optional if check is not None]


def _condition(condition: dict[str, Any]) -> HealthCheck:
    name = f"{condition['name']} {condition.get('subject', '')}".rstrip()
    failed = condition.get("state") == "failed"
    return HealthCheck(
        name,
        not failed,
        str(condition.get("detail", "")),
        str(condition.get("next", "")),
        aside="" if failed else str(condition.get("state")),
    )


def _store(says: str) -> HealthCheck:
    return (
        HealthCheck("store", True)
        if says == "ok"
        else HealthCheck("store", False, says, "Look at etcd's log.")
    )


def _service(service: str, state: dict[str, Any]) -> HealthCheck:
    if state.get("ready"):
        return HealthCheck(service, True)
    return HealthCheck(
        service,
        False,
        str(state.get("reason") or "not ready"),
        f"See what is told above; the log of {service} says more.",
    )


def _identity(status: dict[str, Any]) -> HealthCheck | None:
    if "git" not in status:
        return None
    git = status["git"] or {}
    known = bool(git.get("name") and git.get("email"))
    return HealthCheck(
        "git identity",
        known,
        f"{git.get('name')} <{git.get('email')}>" if known else "nobody",
        "" if known else "Set gitusername and gitemail, and start the node again.",
    )


def _clock(status: dict[str, Any], now: datetime) -> HealthCheck | None:
    if not isinstance(status.get("now"), str):
        return None
    off = parse_time(status["now"]) - now
    good = abs(off) <= CLOCK_TOLERANCE
    words = f"{span(off)} {'ahead of' if off > timedelta(0) else 'behind'} this machine"
    return HealthCheck("clock", good, "" if good else words, "" if good else "Set both clocks, best by NTP.")


def _federation(status: dict[str, Any], now: datetime) -> HealthCheck | None:
    """One that is away is no fault of the node: its pipelines run, and it reconnects by itself. Not so one
    that has struck the node off."""
    federation = status.get("federation")
    if not isinstance(federation, dict):
        return None
    name, since = federation.get("name"), federation.get("since")
    if federation.get("reachable") is not False:
        return HealthCheck("federation", True, str(name))
    reason, advice = str(federation.get("reason")), str(federation.get("next") or "")
    if federation.get("removed"):
        return HealthCheck("federation", False, reason, advice)
    away = f" for {span(now - parse_time(since))}" if isinstance(since, str) else ""
    return HealthCheck("federation", True, f"{name}: unreachable{away}: {reason}", advice, aside="away")


def examine(session: CliSession) -> list[HealthCheck]:
    """All checks; a gateway that does not answer is one that failed, and the only one."""
    from mao_shared.errors import PeerUnavailable

    try:
        status = session.client.status()
    except PeerUnavailable as error:
        return [HealthCheck("gateway", False, error.detail, error.next or "")]
    return [HealthCheck("gateway", True, session.config.url), *checks_of(status, session.now)]


def until_well(
    session: CliSession, seconds: float, look: Callable[[CliSession], list[HealthCheck]] = examine
) -> list[HealthCheck]:
    """The checks as soon as all are well, or as they are when the time is up."""
    ends = time.monotonic() + seconds
    told = ""
    while True:
        checks = look(session)
        failed = [check.name for check in checks if not check.ok]
        if not failed or time.monotonic() >= ends:
            return checks
        if (words := f"waiting for {', '.join(failed)}") != told:
            say(words)
            told = words
        session.pause(PAUSE)


def doctor(
    context: typer.Context,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Until all is well.")] = False,
    timeout: Annotated[float | None, duration_option("Longest wait; else 60s.", "--timeout")] = None,
    output: OutputOption = None,
) -> None:
    """Check the node: gateway, services, store, engine and what they need."""
    session = session_of(context)
    checks = (
        until_well(session, timeout if timeout is not None else DEFAULT_WAIT) if wait else examine(session)
    )
    session.show(views.CHECK, [check.record() for check in checks], output)
    failed = [check for check in checks if not check.ok]
    if not failed:
        return
    advice = next((check.next for check in failed if check.next), None)
    raise CommandError(_exit_code(failed, wait), f"{len(failed)} of {len(checks)} checks failed.", advice)


def _exit_code(failed: list[HealthCheck], waited: bool) -> ExitCode:
    if waited:
        return ExitCode.WAIT_TIMED_OUT
    return ExitCode.UNREACHABLE if failed[0].name == "gateway" else ExitCode.FAILED


def add_to(app: typer.Typer) -> None:
    """Adds the command to the root."""
    app.command(epilog=example("maoctl doctor", "maoctl doctor --wait --timeout 60s"))(doctor)
