"""Webhook: an address that every alarm is sent to, and the deliveries that are still due."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from .common import Name, Record, Timestamp


def _check_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("an address is http:// or https:// with a host")
    if parts.username or parts.password:
        raise ValueError("no user or password in the address: receivers check the signature")
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
    """What `GET /webhooks` tells. `waiting`: alarms to be delivered still; `given_up`: those that never were.

    `secret` is there in the answer to the creation only.
    """

    name: Name
    url: str
    created_at: Timestamp
    waiting: int = 0
    given_up: int = 0
    last_error: str | None = None
    secret: str | None = None


class Delivery(Record):
    """An alarm that is due at a webhook; stored under `keys.delivery` until it is there."""

    alarm: str
    webhook: Name
    created_at: Timestamp
    tries: int = Field(default=0, ge=0)
    not_before: Timestamp | None = None
    last_error: str | None = None
    given_up: bool = False
