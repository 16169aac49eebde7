"""`maoctl doctor`: is the node well, and what to do if not."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Annotated, Any

import typer

from maoctl import views
from maoctl.exits import ExitCode, Stop
from maoctl.lookup import duration_option
from maoctl.output import say
from maoctl.session import OutputOption, Session, example, session_of
from maoctl.text import parse_time, size, span

RECENT = 20  # runs that are looked at
PAUSE = 0.5  # seconds between two looks of --wait
DEFAULT_WAIT = 60.0  # seconds
LOW_DISK = 1024**3  # bytes
CLOCK_TOLERANCE = timedelta(seconds=30)  # half the start deadline that a schedule has by default


@dataclass(frozen=True)
class Check:
    """One thing that has to be well; `next` is the command or step when it is not.

    `away`: it is not, and that is no fault of the node.
    """

    name: str
    ok: bool
    detail: str = ""
    next: str = ""
    away: bool = False

    def record(self) -> dict[str, Any]:
        state = "away" if self.away else "ok" if self.ok else "failed"
        return {"name": self.name, "state": state, "detail": self.detail, "next": self.next}


def checks_of(status: dict[str, Any], now: datetime) -> list[Check]:
    """What the node's `/status` says, check by check; what it does not report is left out."""
    checks = [_store(str(status["store"]))] if "store" in status else []
    for service, state in (status.get("services") or {}).items():
        checks += _service(service, state)
    optional = (_identity(status), _disk(status), _clock(status, now), _federation(status, now))
    return checks + [check for check in optional if check is not None]


def _store(says: str) -> Check:
    if says == "ok":
        return Check("store", True)
    return Check("store", False, says, "Look at etcd's log, and at MAO_ETCD_ENDPOINTS.")


def _service(service: str, state: dict[str, Any]) -> list[Check]:
    """What the service needs first, since that is mostly why it is not ready itself."""
    advice = f"Look at the log of {service}; its supervisor starts it again."
    needs = [_need(service, need, says, advice) for need, says in (state.get("checks") or {}).items()]
    if state.get("ready"):
        return [*needs, Check(service, True)]
    return [*needs, Check(service, False, str(state.get("reason") or "not ready"), advice)]


def _need(service: str, need: str, says: str, advice: str) -> Check:
    name = f"{service}: {need}"
    return Check(name, True) if says == "ok" else Check(name, False, says, _ADVICE.get(need, advice))


_ADVICE = {
    "store": "Look at etcd's log, and at MAO_ETCD_ENDPOINTS.",
    "engine": "`docker info` shows why; start Docker or correct its socket.",
    "docker": "`docker info` shows why; start Docker or correct its socket.",
    "git": "Set gitusername and gitemail, and start the node again.",
}


def _identity(status: dict[str, Any]) -> Check | None:
    if "git" not in status:
        return None
    git = status["git"] or {}
    known = bool(git.get("name") and git.get("email"))
    return Check(
        "git identity",
        known,
        f"{git.get('name')} <{git.get('email')}>" if known else "nobody",
        "" if known else _ADVICE["git"],
    )


def _disk(status: dict[str, Any]) -> Check | None:
    disk = status.get("disk") or {}
    free = disk.get("free")
    if not isinstance(free, int):
        return None
    if disk.get("writable") is False:
        advice = "Look at MAO_DATA_DIR: is it mounted for writing, who owns it?"
        return Check("disk", False, "the data directory cannot be written", advice)
    advice = "Free space in the node's data directory; nothing is published without."
    if isinstance(short := disk.get("shortage"), str):
        return Check("disk", False, f"{size(free)} free: {short}", "Free space; runs wait for it till then.")
    return Check("disk", free >= LOW_DISK, f"{size(free)} free", "" if free >= LOW_DISK else advice)


def _clock(status: dict[str, Any], now: datetime) -> Check | None:
    if not isinstance(status.get("now"), str):
        return None
    off = parse_time(status["now"]) - now
    good = abs(off) <= CLOCK_TOLERANCE
    words = f"{span(off)} {'ahead of' if off > timedelta(0) else 'behind'} this machine"
    return Check("clock", good, "" if good else words, "" if good else "Set both clocks, best by NTP.")


def _federation(status: dict[str, Any], now: datetime) -> Check | None:
    """One that is away is no fault of the node: its pipelines run, and it reconnects by itself. Not so one
    that has struck the node off."""
    federation = status.get("federation")
    if not isinstance(federation, dict):
        return None
    name, since = federation.get("name"), federation.get("since")
    if federation.get("reachable") is not False:
        return Check("federation", True, str(name))
    reason, advice = str(federation.get("reason")), str(federation.get("next") or "")
    if federation.get("removed"):
        return Check("federation", False, reason, advice)
    away = f" for {span(now - parse_time(since))}" if isinstance(since, str) else ""
    return Check("federation", True, f"{name}: unreachable{away}: {reason}", advice, away=True)


def examine(session: Session) -> list[Check]:
    """All checks; a gateway that does not answer is one that failed, and the only one."""
    from mao_shared.errors import PeerUnavailable

    try:
        status = session.client.status()
    except PeerUnavailable as error:
        return [Check("gateway", False, error.detail, error.next or "")]
    return [Check("gateway", True, session.config.url), *checks_of(status, session.now)]


def examine_all(session: Session) -> list[Check]:
    """As `examine`, and what the newest runs tell; nothing to wait for, since only another run changes it."""
    checks = examine(session)
    return [*checks, *(containers_start(_recent(session)) if checks[0].ok else [])]


def _recent(session: Session) -> list[dict[str, Any]]:
    """The newest runs as they are kept; none when they cannot be asked for."""
    from mao_shared.errors import MaoError

    try:
        return [run.model_dump(mode="json") for run in islice(session.client.runs(), RECENT)]
    except MaoError:
        return []


def containers_start(newest_first: list[dict[str, Any]]) -> list[Check]:
    """Pure: an engine that answers and starts nothing shows in the last step that it was given."""
    for run in newest_first:
        for step in reversed(run.get("steps") or []):
            error = step.get("error") or {}
            if error.get("fault") == "engine":
                advice = (
                    error.get("next") or "`docker run` of the same image shows why; look at Docker's log."
                )
                return [Check("engine: last container", False, str(error.get("detail")), advice)]
            if "running" in (step.get("times") or {}):
                return []
    return []


def until_well(
    session: Session, seconds: float, look: Callable[[Session], list[Check]] = examine
) -> list[Check]:
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
        until_well(session, timeout if timeout is not None else DEFAULT_WAIT)
        if wait
        else examine_all(session)
    )
    session.show(views.CHECK, [check.record() for check in checks], output)
    failed = [check for check in checks if not check.ok]
    if not failed:
        return
    advice = next((check.next for check in failed if check.next), None)
    raise Stop(_exit_code(failed, wait), f"{len(failed)} of {len(checks)} checks failed.", advice)


def _exit_code(failed: list[Check], waited: bool) -> ExitCode:
    if waited:
        return ExitCode.WAIT_TIMED_OUT
    return ExitCode.UNREACHABLE if failed[0].name == "gateway" else ExitCode.FAILED


def add_to(app: typer.Typer) -> None:
    """Adds the command to the root."""
    app.command(epilog=example("maoctl doctor", "maoctl doctor --wait --timeout 60s"))(doctor)
