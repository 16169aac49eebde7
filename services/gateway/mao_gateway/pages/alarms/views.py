"""What *Alarms* shows of an alarm and of who is told, as rows of text; and the rule that its form describes.

Pure.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from markupsafe import Markup

from mao_gateway.pages.formats import Clock, plural, span
from mao_gateway.pages.node_api import path_of
from mao_shared.errors import InvalidInput
from mao_shared.models import Alarm
from mao_shared.models.notification import ChannelState, HeartbeatState, Message, QuietHours, Rule
from mao_shared.text import harmless_line, one_line

KINDS: dict[str, tuple[str, str]] = {
    "run-failed": ("failed", "bad"),
    "run-missed": ("missed", "warn"),
    "run-late": ("late", "warn"),
    "spike": ("spike", "bad"),
    "level-shift": ("spike", "warn"),
    "metric-unreadable": ("attention", "warn"),
    "check": ("attention", "warn"),
    "round": ("lost", "lost"),
    "unpushed": ("push", "warn"),
    "remote": ("push", "warn"),
    "disk": ("attention", "bad"),
    "node-silent": ("stale", "off"),
    "certificate": ("attention", "warn"),
    "channel": ("stale", "warn"),
}
"""Kind of alarm → icon and colour token; all others look like `_OTHER`. The word is the kind itself."""
_OTHER = ("attention", "warn")
_TIME = re.compile(r"\d{8}T\d{6}(?:\d{3})?Z[-.]?")


@dataclass(frozen=True, slots=True)
class Link:
    """A word and where it leads; None: nowhere."""

    text: str
    href: str | None = None


@dataclass(frozen=True, slots=True)
class AlarmRow:
    """An alarm. `where`: pipeline, dataset or subject; `more`: its run and metric; `note`: of the person who
    acknowledged it, or how it ended."""

    id: str
    shown_id: Markup
    kind: str
    icon: str
    colour: str
    where: Link
    more: tuple[Link, ...]
    what: str
    next: str | None
    since: datetime
    ended: datetime | None = None
    note: str = ""


def open_row(alarm: Alarm, node: str) -> AlarmRow:
    """Return the row of an alarm that is neither acknowledged nor over."""
    icon, colour = KINDS.get(alarm.kind, _OTHER)
    return AlarmRow(
        id=alarm.id,
        shown_id=_tail(alarm.id),
        kind=alarm.kind,
        icon=icon,
        colour=colour,
        where=_where(alarm, node),
        more=tuple(_more(alarm)),
        what=one_line(alarm.detail),
        next=alarm.next,
        since=alarm.raised_at,
    )


def closed_row(alarm: Alarm, node: str) -> AlarmRow:
    """Return the row of an alarm that was acknowledged, or is over."""
    row = open_row(alarm, node)
    seen = alarm.acknowledged
    if seen is None:
        note = "over by itself"
    else:
        who = seen.by or "acknowledged"
        note = f"{who}: {seen.note}" if seen.note else (who if not seen.by else f"{who}, without a note")
    ended = seen.at if seen is not None else alarm.over
    return replace(row, note=note, ended=ended)


def _tail(alarm_id: str) -> Markup:
    """Return an id of which the time at its beginning, which the row shows already, is not seen."""
    text = harmless_line(alarm_id)
    match = _TIME.match(text)
    head = match[0] if match and match.end() < len(text) else ""
    return Markup("<b>{}</b>{}").format(head, text[len(head) :])


def _where(alarm: Alarm, node: str) -> Link:
    if alarm.pipeline is not None:
        return Link(alarm.pipeline, path_of("ui", "pipelines", alarm.pipeline))
    if alarm.dataset is not None:
        return Link(alarm.dataset, path_of("ui", "datasets", alarm.dataset))
    if alarm.run is not None:
        return Link("run", path_of("ui", "runs", alarm.run))
    return Link(alarm.subject or node)


def _more(alarm: Alarm) -> list[Link]:
    """Return where to look further: run, dataset, metric, round."""
    found = []
    if alarm.run is not None and alarm.kind == "check":  # where a quarantined snapshot is decided about, too
        found.append(Link("checks of the run", path_of("ui", "runs", alarm.run) + "#checks"))
    elif alarm.run is not None:
        found.append(Link("run", path_of("ui", "runs", alarm.run)))
    if alarm.dataset is not None and alarm.metric is not None:
        found.append(Link(f"metric {alarm.metric}", path_of("ui", "datasets", alarm.dataset) + "#metrics"))
    if alarm.dataset is not None and alarm.kind == "round":
        found.append(Link("rounds", path_of("ui", "agreement", alarm.dataset)))
    if alarm.dataset is not None and alarm.pipeline is not None:
        found.append(Link(f"dataset {alarm.dataset}", path_of("ui", "datasets", alarm.dataset)))
    return found


# Who is told


@dataclass(frozen=True, slots=True)
class ReceiverRow:
    """A channel or heartbeat: `to`, its masked address; `state` in words, with icon and colour."""

    name: str
    to: str
    last: datetime | None
    icon: str
    colour: str
    state: str
    error: str | None
    waiting: int
    given_up: int = 0


def channel_row(channel: ChannelState, clock: Clock) -> ReceiverRow:
    icon, colour, state = "ok", "ok", "delivered"
    if channel.waiting:
        icon, colour, state = "waiting", "off", plural(channel.waiting, "message waits", "messages wait")
        if channel.tries and channel.next_try_at is not None:
            pause = max(0.0, (channel.next_try_at - clock.now).total_seconds())
            icon, colour = "failed", "bad"
            state = f"try {channel.tries + 1} in {span(round(pause))}"
    elif channel.given_up:
        icon, colour = "failed", "warn"
        state = plural(channel.given_up, "message was given up", "messages were given up")
    elif channel.delivered_at is None:
        icon, colour, state = "waiting", "off", "nothing sent yet"
    error = channel.last_error if channel.waiting or channel.given_up else None
    return ReceiverRow(
        channel.name,
        channel.url,
        channel.delivered_at,
        icon,
        colour,
        state,
        error,
        channel.waiting,
        channel.given_up,
    )


def heartbeat_row(heartbeat: HeartbeatState) -> ReceiverRow:
    icon, colour, state = "ok", "ok", f"{heartbeat.last} accepted"
    if heartbeat.waiting:
        icon, colour = ("failed", "bad") if heartbeat.last_error else ("waiting", "off")
        state = plural(heartbeat.waiting, "ping waits", "pings wait")
    elif heartbeat.last is None:
        icon, colour, state = "waiting", "off", "no ping yet"
    error = heartbeat.last_error if heartbeat.waiting else None
    return ReceiverRow(
        heartbeat.pipeline, heartbeat.url, heartbeat.last_at, icon, colour, state, error, heartbeat.waiting
    )


@dataclass(frozen=True, slots=True)
class WaitingRow:
    """A message that has not arrived yet."""

    receiver: str
    event: str
    about: str
    title: str
    tries: int
    next: datetime | None
    error: str


def waiting_row(message: Message) -> WaitingRow:
    receiver = f"heartbeat of {message.channel}" if message.is_ping else message.channel
    return WaitingRow(
        receiver,
        message.event,
        message.about,
        message.title,
        message.tries,
        message.not_before,
        message.last_error or "",
    )


@dataclass(frozen=True, slots=True)
class RuleRow:
    """A rule in words. `to` is empty for a rule that mutes."""

    name: str
    kinds: str
    of: str
    to: str
    quiet: str
    more: str


def rule_row(rule: Rule) -> RuleRow:
    more = []
    if rule.reminder is not None:
        more.append(f"reminder after {span(rule.reminder)}")
    if rule.failures > 1:
        more.append(f"from {rule.failures} failed runs in a row")
    if not rule.ends:
        more.append("without the end")
    return RuleRow(
        name=rule.name,
        kinds=", ".join(rule.kinds) or "all",
        of=", ".join([*rule.pipelines, *rule.datasets]) or "all",
        to=", ".join(rule.channels),
        quiet="never" if rule.quiet is None else _quiet(rule.quiet),
        more=", ".join(more),
    )


def _quiet(quiet: QuietHours) -> str:
    return f"{quiet.start} to {quiet.end} {quiet.timezone}"


MAX_NUMBER = 1e9  # that a form takes; the API has limits of its own
CHANNEL_FIELD = "channel:"  # beginning of the names of the fields that choose a channel


def read_rule(fields: Mapping[str, str]) -> dict[str, Any]:
    """Return the rule that a form describes, as the API takes it. Raises InvalidInput."""
    if not fields.get("name"):
        raise InvalidInput("The name of the rule is missing.")
    start, end = fields.get("quiet-from"), fields.get("quiet-to")
    if (start is None) != (end is None):
        raise InvalidInput("Quiet hours need a beginning and an end.", next="Write both as 22:00, or none.")
    quiet = None
    if start is not None:
        quiet = {"start": start, "end": end, "timezone": fields.get("zone", "UTC")}
    hours = _number(fields.get("reminder"), "reminder")
    failures = _number(fields.get("failures"), "failures")
    return {
        "name": fields["name"],
        "kinds": _words(fields.get("kinds", "")),
        "pipelines": _words(fields.get("pipelines", "")),
        "datasets": _words(fields.get("datasets", "")),
        "channels": sorted(
            name.removeprefix(CHANNEL_FIELD) for name in fields if name.startswith(CHANNEL_FIELD)
        ),
        "reminder": None if hours is None else hours * 3600,
        "quiet": quiet,
        "failures": 1 if failures is None else int(failures),
        "ends": "ends" in fields,
    }


def _words(text: str) -> list[str]:
    return list(dict.fromkeys(text.replace(",", " ").split()))


def _number(text: str | None, field: str) -> float | None:
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not abs(value) <= MAX_NUMBER:
        raise InvalidInput(
            f"{field}: {text[:80]!r} is no number up to {MAX_NUMBER:g}.", next="Write a number."
        )
    return value
