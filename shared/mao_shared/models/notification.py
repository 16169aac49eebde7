"""Who is told about alarms, and when: channels, rules, heartbeats, and the messages to them."""

from __future__ import annotations

from datetime import time
from typing import Annotated, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, Field, ValidationInfo, model_validator

from .common import STORED, Name, OrNewer, Record, Seconds, Timestamp

ENDLESS_KINDS = frozenset({"spike", "level-shift", "metric-unreadable", "round"})
"""Kinds of alarms about an event, which never end by themselves."""
RUN_FAILED, RUN_MISSED, RUN_LATE = "run-failed", "run-missed", "run-late"


# Channels


class ChannelRequest(Record):
    """Body of `POST /channels`. `url`: as Apprise documents it for the service; it is a secret."""

    name: Name = Field(examples=["mail"])
    url: str = Field(
        min_length=4,
        max_length=4000,
        examples=["mailtos://user:password@smtp.example.org?to=ada@example.org"],
    )


class Channel(Record):
    """A channel, stored under `keys.channel(node, name)`. `sealed`: its encrypted URL."""

    key_field = "name"
    name: Name
    service: str = Field(max_length=63, examples=["mailtos"])  # the scheme of its URL
    sealed: str
    created_at: Timestamp


class ChannelState(Record):
    """A channel in a response; `url` is masked.

    `waiting`: number of messages not delivered yet; `given_up`: number of abandoned ones. `tries` and
    `next_try_at`: of the message that is sent next, if its last attempt failed.
    """

    name: Name = Field(examples=["mail"])
    service: str = Field(examples=["mailtos"])
    url: str = Field(examples=["mailtos://…"])
    created_at: Timestamp
    waiting: int = 0
    given_up: int = 0
    last_error: str | None = None
    delivered_at: Timestamp | None = None
    tries: int = 0
    next_try_at: Timestamp | None = None


class UrlToCompare(Record):
    """Body of `…/compare`: a URL that may be the one that the node keeps, which it does not show."""

    url: str = Field(max_length=4000, examples=["ntfys://ntfy.example.org/alarms"])


class UrlComparison(Record):
    """Whether a URL is the one that the node keeps."""

    same: bool


class SendResult(Record):
    """Result of a test message. `delivered`: the service accepted it; `error`: why not."""

    delivered: bool
    error: str | None = None


# Rules


def _check_zone(zone: str, info: ValidationInfo) -> str:
    if info.context != STORED:
        try:
            ZoneInfo(zone)
        except (KeyError, OSError, ValueError) as error:
            raise ValueError("unknown time zone; write for example Europe/Zurich") from error
    return zone


TimeOfDay = Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$", examples=["22:00"])]
TimeZone = Annotated[str, Field(max_length=64, examples=["Europe/Zurich"]), AfterValidator(_check_zone)]


class QuietHours(Record):
    """A time of day in which nothing is sent; it may pass midnight."""

    start: TimeOfDay
    end: TimeOfDay = Field(examples=["07:00"])
    timezone: TimeZone = "UTC"

    @model_validator(mode="after")
    def _has_length(self) -> QuietHours:
        if self.start == self.end:
            raise ValueError("quiet hours must end at another time than they start")
        return self

    def times(self) -> tuple[time, time]:
        return time.fromisoformat(self.start), time.fromisoformat(self.end)


Kind = Annotated[str, Field(min_length=1, max_length=63, examples=["run-failed"])]


class Rule(Record):
    """Which alarms go to which channels, stored under `keys.rule(node, name)`.

    An empty list of pipelines, datasets or kinds matches all alarms. Without channels, the rule mutes what it
    matches. `reminder`: seconds after which an open alarm is sent again; `failures`: number of failed runs in
    a row from which a failure is sent; `ends`: whether the end of an alarm is sent too.
    """

    key_field = "name"
    name: Name = Field(examples=["night"])
    pipelines: list[Name] = Field(default_factory=list, max_length=1000, examples=[["system-performance"]])
    datasets: list[Name] = Field(default_factory=list, max_length=1000)
    kinds: list[Kind] = Field(default_factory=list, max_length=100, examples=[["run-failed", "run-missed"]])
    channels: list[Name] = Field(default_factory=list, max_length=50, examples=[["mail"]])
    reminder: Annotated[Seconds, Field(ge=60)] | None = None
    quiet: QuietHours | None = Field(
        default=None, examples=[{"start": "22:00", "end": "07:00", "timezone": "Europe/Zurich"}]
    )
    failures: int = Field(default=1, ge=1, le=1000)
    ends: bool = True


# What has been sent


class Recipient(Record):
    """A channel that an alarm goes to. `sent`: number of messages so far; `at`: when the last was written."""

    channel: Name
    sent: int = Field(default=0, ge=0)
    at: Timestamp | None = None


class Notice(Record):
    """What has been sent about an alarm, stored under `keys.notice(node, alarm)` until no more will be.

    It is written with the alarm. `recipients` is None until it is decided who is told.
    """

    key_field = "alarm"
    alarm: str
    created_at: Timestamp
    recipients: list[Recipient] | None = None


AlarmEvent = Literal["raised", "reminder", "over"]
PingEvent = Literal["start", "success", "fail"]
PING_EVENTS = ("start", "success", "fail")


class Message(Record):
    """A message to a channel, or a ping for a heartbeat; stored under `keys.message(node, id)`.

    The id is its idempotency key: `<alarm>~<channel>~<event>` or `<run>~<pipeline>~<event>`. `channel`: name
    of the channel, or of the heartbeat's pipeline.
    """

    key_field = "id"
    id: str = Field(max_length=500)
    channel: Name = Field(examples=["mail"])
    event: Annotated[AlarmEvent | PingEvent, OrNewer]
    about: str  # the alarm or the run
    title: str = ""
    text: str = ""
    created_at: Timestamp
    tries: int = Field(default=0, ge=0)
    not_before: Timestamp | None = None
    last_error: str | None = None
    delivered_at: Timestamp | None = None
    given_up: bool = False

    @property
    def is_ping(self) -> bool:
        return self.event in PING_EVENTS

    @property
    def is_done(self) -> bool:
        return self.delivered_at is not None or self.given_up


def message_id(about: str, channel: str, event: str, number: int = 0) -> str:
    """Return the id of a message; `number`: of the reminder, from 1."""
    return f"{about}~{channel}~{event}" + (f"-{number}" if number else "")


# Heartbeats


def _check_ping_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("invalid address; write http:// or https:// and a host")
    if parts.username or parts.password:
        raise ValueError("an address must have no user or password")
    return url


class HeartbeatRequest(Record):
    """Body of `PUT /heartbeats/{pipeline}`. `url`: pinged as it is and with /start and /fail; a secret."""

    url: Annotated[
        str,
        Field(min_length=1, max_length=2000, examples=["https://hc.example.org/ping/8f2c"]),
        AfterValidator(_check_ping_url),
    ]


class Heartbeat(Record):
    """The address pinged about a pipeline's runs, stored under `keys.heartbeat(node, pipeline)`."""

    key_field = "pipeline"
    pipeline: Name
    shown: str = Field(examples=["https://hc.example.org/…"])
    sealed: str
    created_at: Timestamp


class HeartbeatState(Record):
    """A heartbeat in a response; `url` is masked. `last`: the newest ping that was accepted."""

    pipeline: Name
    url: str
    created_at: Timestamp
    waiting: int = 0
    last: str | None = None
    last_at: Timestamp | None = None
    last_error: str | None = None


# The state of pipelines


class PipelineHealth(Record):
    """What is wrong with a pipeline's runs, stored under `keys.pipeline_health(node, pipeline)`.

    `failures`: failed runs in a row; `missed`: missed ticks in a row; `failing`, `missing`, `late`: ids of
    the alarms that are open; `missed_at`: when the last tick was missed. `judged_at` and `judged`: end and id
    of the last run that changed this record.
    """

    key_field = "pipeline"
    pipeline: Name
    failures: int = Field(default=0, ge=0)
    failing: str | None = None
    missed: int = Field(default=0, ge=0)
    missing: str | None = None
    missed_at: Timestamp | None = None
    late: str | None = None
    judged_at: Timestamp | None = None
    judged: str | None = None
