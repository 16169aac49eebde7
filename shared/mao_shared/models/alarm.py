"""Control metrics (numbers read from a step's output) and their series; alarms, webhooks and deliveries."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from .common import Name, NodeName, OrNewer, Record, Timestamp

Measured = Literal["files", "bytes", "rows"]
Aggregate = Literal["last", "first", "sum", "mean", "min", "max", "count"]
MAX_METRICS = 50


class ControlMetric(Record):
    """A number that is read from a step's output after each publish.

    Set either `measure` (of the whole output: files, bytes, or rows of its CSV and JSON Lines), or `file`
    with `pointer` (JSON pointer, for `.json`) or with `column` and `aggregate` (for `.csv`).
    """

    name: Name
    measure: Measured | None = None
    file: str | None = Field(default=None, max_length=1000)
    pointer: str | None = Field(default=None, max_length=1000, examples=["/images/total"])
    column: str | None = Field(default=None, max_length=1000)
    aggregate: Aggregate = "last"
    unit: str = Field(default="", max_length=50)

    @model_validator(mode="after")
    def _one_source(self) -> ControlMetric:
        of_file = self.file is not None and (self.pointer is None) != (self.column is None)
        of_output = self.measure is not None and (self.file, self.pointer, self.column) == (None,) * 3
        if of_output == of_file:
            raise ValueError("give either 'measure', or 'file' with 'pointer' or 'column'")
        return self


class Point(Record):
    """A point of a series. The detector accepts `expected` ± `band`; both are None if it has no estimate."""

    run: str
    time: Timestamp
    value: float
    accepted: bool = True  # False: flagged, so excluded from the detector's history
    expected: float | None = None
    band: float | None = None
    provisional: bool = False


class Series(Record):
    """The most recent points of a metric, oldest first; stored under `keys.series`."""

    pipeline: Name
    step: Name
    metric: Name
    unit: str = ""
    points: list[Point] = Field(default_factory=list)


class RoundSpike(Record):
    """A spike of a metric in a round: of one node, of all nodes, or of all nodes but those that lag behind.

    `value` and `expected` are for ground truth, `values` for each of `nodes`. `reason`: what the
    expected value comes from, of ground truth or of the node if only one spikes.
    """

    metric: str
    round: str
    tick: Timestamp
    whose: Annotated[Literal["node", "consensus", "lagging"], OrNewer]
    nodes: list[str]
    value: float | None
    expected: float | None
    reason: str | None = None
    values: dict[str, float | None] = Field(default_factory=dict)


class Spikes(Record):
    """Spikes, newest first. `rounds`: number of rounds examined; `metrics`: names of the metrics examined."""

    rounds: int
    metrics: list[str]
    items: list[RoundSpike]


class Acknowledgement(Record):
    """Record that a person has seen an alarm."""

    at: Timestamp
    by: str = Field(default="", max_length=200)
    note: str = Field(default="", max_length=2000)


AlarmKind = Literal["spike", "level-shift", "metric-unreadable", "round", "check"]
"""Kinds of alarms about data. An alarm about the node itself has the condition's name as its kind."""


class Alarm(Record):
    """An event that needs a person's attention; stored under `keys.alarm(node, id)`.

    Alarms about a condition of the node are stored under `keys.condition_alarm(node, id)`, which older
    versions do not read. `reason`: what `expected` and `band` come from.
    `service`: reported it; `subject`: the dataset, run or key affected; `next`: how to
    fix it; `over`: when the condition held again; `count`: runs or ticks in a row that it is about.
    """

    key_field = "id"
    id: str
    kind: str = Field(max_length=63, examples=["spike", "disk"])
    node: NodeName
    raised_at: Timestamp
    pipeline: Name | None = None
    step: Name | None = None
    run: str | None = None
    dataset: Name | None = None
    metric: Name | None = None
    value: float | None = None
    expected: float | None = None
    band: float | None = None
    provisional: bool = False
    reason: str | None = None
    detail: str
    acknowledged: Acknowledgement | None = None
    service: str | None = None
    subject: str | None = None
    next: str | None = None
    over: Timestamp | None = None
    count: int | None = None


class AcknowledgeBody(Record):
    """Body of `POST /alarms/{id}/acknowledge`."""

    by: str = Field(default="", max_length=200, examples=["Ada"])
    note: str = Field(default="", max_length=2000, examples=["The source changed its format."])


def _check_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("invalid address; write http:// or https:// and a host")
    if parts.username or parts.password:
        raise ValueError("an address must have no user or password; receivers check the signature")
    return url


WebhookUrl = Annotated[
    str,
    Field(min_length=1, max_length=2000, examples=["https://lab.example.org/alarms"]),
    AfterValidator(_check_url),
]


class WebhookRequest(Record):
    """Body of `POST /webhooks`. Without `secret` (24 characters or more), one is generated, shown once."""

    name: Name = Field(examples=["lab-chat"])
    url: WebhookUrl
    secret: str | None = Field(default=None, min_length=24, max_length=500)


class Webhook(Record):
    """A registered webhook, stored under `keys.webhook(node, name)`. `sealed`: its encrypted secret."""

    key_field = "name"
    name: Name
    url: WebhookUrl
    sealed: str
    created_at: Timestamp


class WebhookState(Record):
    """A webhook in the response to `GET /webhooks`.

    `waiting`: number of alarms not delivered yet; `given_up`: number whose delivery was abandoned; `secret`:
    only in the response to its creation.
    """

    name: Name
    url: str
    created_at: Timestamp
    waiting: int = 0
    given_up: int = 0
    last_error: str | None = None
    secret: str | None = None


class WebhookTest(Record):
    """Result of a test delivery. `delivered`: the receiver answered 2xx; `error`: why not."""

    delivered: bool
    error: str | None = None


class Delivery(Record):
    """A pending delivery of an alarm to a webhook; stored under `keys.delivery` until it succeeds."""

    alarm: str
    webhook: Name
    created_at: Timestamp
    tries: int = Field(default=0, ge=0)
    not_before: Timestamp | None = None
    last_error: str | None = None
    given_up: bool = False
