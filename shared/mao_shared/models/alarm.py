"""Control metrics (a number of each run of a step) and their series, alarms, webhooks and due deliveries."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from .common import Name, NodeName, OrNewer, Record, Timestamp

Measured = Literal["files", "bytes", "rows"]
Aggregate = Literal["last", "first", "sum", "mean", "min", "max", "count"]
MAX_METRICS = 50


class ControlMetric(Record):
    """A number that is read after each publish of a step.

    Either `measure` (of the whole output: files, bytes, or rows of its CSV and JSON lines files), or `file`
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
    """One value of a series. The detector allowed `expected` ± `band`; None where it had no estimate."""

    run: str
    time: Timestamp
    value: float
    accepted: bool = True  # False: flagged, so it stays out of the detector's history
    expected: float | None = None
    band: float | None = None
    provisional: bool = False


class Series(Record):
    """The newest points of a metric, oldest first; stored under `keys.series`."""

    pipeline: Name
    step: Name
    metric: Name
    unit: str = ""
    points: list[Point] = Field(default_factory=list)


class RoundSpike(Record):
    """A spike of a metric in a round: one node's, everybody's, or of all but those that lag.

    `value` and `expected` are ground truth's, `values` those of `nodes`.
    """

    metric: str
    round: str
    tick: Timestamp
    whose: Annotated[Literal["node", "consensus", "lagging"], OrNewer]
    nodes: list[str]
    value: float | None
    expected: float | None
    values: dict[str, float | None] = Field(default_factory=dict)


class Spikes(Record):
    """The newest first. `rounds`: how many were looked at; `metrics`: which."""

    rounds: int
    metrics: list[str]
    items: list[RoundSpike]


class Acknowledgement(Record):
    """A person has seen an alarm."""

    at: Timestamp
    by: str = Field(default="", max_length=200)
    note: str = Field(default="", max_length=2000)


AlarmKind = Literal["spike", "level-shift", "metric-unreadable", "round"]
"""About what tools and nodes have produced; one about the node itself has its condition's name as kind."""


class Alarm(Record):
    """Something a person should look at; stored under `keys.alarm(node, id)`.

    Those about a condition of the node lie under `keys.condition_alarm(node, id)`, where versions that do not
    know them do not look: `service` noticed it, `subject` says what of it, `next` what fixes it, and `over`
    is when it held again.
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
    detail: str
    acknowledged: Acknowledgement | None = None
    service: str | None = None
    subject: str | None = None
    next: str | None = None
    over: Timestamp | None = None


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
    """Body of `POST /webhooks`. Without `secret` (at least 24 characters) one is made and shown once."""

    name: Name
    url: WebhookUrl
    secret: str | None = Field(default=None, min_length=24, max_length=500)


class Webhook(Record):
    """Stored under `keys.webhook(node, name)`; `sealed` is the secret, encrypted with the node's key."""

    key_field = "name"
    name: Name
    url: WebhookUrl
    sealed: str
    created_at: Timestamp


class WebhookState(Record):
    """Answer of `GET /webhooks`. `waiting`: alarms still to be delivered; `given_up`: those that never
    were.

    `secret` is there in the answer to the creation only.
    """

    name: Name
    url: str
    created_at: Timestamp
    waiting: int = 0
    given_up: int = 0
    last_error: str | None = None
    secret: str | None = None


class WebhookTest(Record):
    """`delivered`: the receiver answered 2xx; otherwise `error` says why not."""

    delivered: bool
    error: str | None = None


class Delivery(Record):
    """An alarm that is due at a webhook; stored under `keys.delivery` until it is there."""

    alarm: str
    webhook: Name
    created_at: Timestamp
    tries: int = Field(default=0, ge=0)
    not_before: Timestamp | None = None
    last_error: str | None = None
    given_up: bool = False
