"""Tables of who is told about alarms: channels, rules, heartbeats, and the messages to them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from maoctl.output import Column, TableView
from maoctl.text import relative

if TYPE_CHECKING:
    from mao_shared.models import notification

CHANNEL: TableView[notification.ChannelState] = TableView(
    "channel",
    [
        Column("NAME", lambda channel, _: channel.name, keep_whole=True),
        Column("URL", lambda channel, _: channel.url),
        Column("PENDING", lambda channel, _: channel.waiting),
        Column("FAILED", lambda channel, _: channel.given_up),
        Column("LAST ERROR", lambda channel, _: channel.last_error),
    ],
    lambda channel: channel.name,
)
RULE: TableView[notification.Rule] = TableView(
    "rule",
    [
        Column("NAME", lambda rule, _: rule.name, keep_whole=True),
        Column("KINDS", lambda rule, _: rule.kinds or "all"),
        Column("PIPELINES", lambda rule, _: rule.pipelines or "all"),
        Column("DATASETS", lambda rule, _: rule.datasets or "all", spare=1),
        Column("CHANNELS", lambda rule, _: rule.channels or "(none)"),
        Column(
            "REMINDER",
            lambda rule, _: f"{rule.reminder:.0f}s" if rule.reminder else None,
            wide=True,
            sort=lambda rule: rule.reminder,
        ),
        Column("QUIET", lambda rule, _: quiet_text(rule.quiet), wide=True),
        Column("FAILURES", lambda rule, _: rule.failures, wide=True),
        Column("ENDS", lambda rule, _: rule.ends, wide=True),
    ],
    lambda rule: rule.name,
)
HEARTBEAT: TableView[notification.HeartbeatState] = TableView(
    "heartbeat",
    [
        Column("PIPELINE", lambda heartbeat, _: heartbeat.pipeline, keep_whole=True),
        Column("URL", lambda heartbeat, _: heartbeat.url),
        Column("LAST", lambda heartbeat, _: heartbeat.last),
        Column(
            "AGE",
            lambda heartbeat, now: relative(heartbeat.last_at, now),
            keep_whole=True,
            sort=lambda heartbeat: heartbeat.last_at,
        ),
        Column("PENDING", lambda heartbeat, _: heartbeat.waiting, spare=1),
        Column("LAST ERROR", lambda heartbeat, _: heartbeat.last_error),
    ],
    lambda heartbeat: heartbeat.pipeline,
    lambda heartbeat: heartbeat.last_at,
)
MESSAGE: TableView[notification.Message] = TableView(
    "message",
    [
        Column("CHANNEL", lambda message, _: message.channel, keep_whole=True),
        Column("EVENT", lambda message, _: message.event),
        Column(
            "AGE",
            lambda message, now: relative(message.created_at, now),
            keep_whole=True,
            sort=lambda message: message.created_at,
        ),
        Column("STATE", lambda message, _: message_state(message)),
        Column("ABOUT", lambda message, _: message.about),
        Column("TRIES", lambda message, _: message.tries, wide=True),
        Column("LAST ERROR", lambda message, _: message.last_error),
    ],
    lambda message: message.id,
    lambda message: message.created_at,
)


def quiet_text(quiet: notification.QuietHours | None) -> str | None:
    return None if quiet is None else f"{quiet.start}-{quiet.end} {quiet.timezone}"


def message_state(message: notification.Message) -> str:
    if message.delivered_at is not None:
        return "delivered"
    return "given up" if message.given_up else "waiting"
