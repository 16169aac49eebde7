"""What the forms of the pages post, and the message that the next page shows.

A form's handler calls the node's API and redirects (303), so that reloading a page repeats nothing. What came
of it is kept here for a short time under a random word in the address; after an error also what was typed, so
that nothing has to be typed again. A form that creates something has a key: sent twice, by a double click for
instance, it creates one. Other sites cannot post: the gateway refuses a foreign Origin and marked cross-site
requests before any handler (`mao_shared.web.callers`), and browsers send Origin with every post.
"""

from __future__ import annotations

import re
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from fastapi import Request
from starlette.responses import RedirectResponse

from mao_shared.errors import InvalidInput, MaoError

MAX_KEPT = 200  # messages; the oldest are dropped
MAX_KEPT_TEXT = 20_000  # characters of the fields of one; with more, all have to be typed again
MAX_FIELDS = 200
KEY_FIELD = "idempotency_key"
_KEY = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True)
class Message:
    """What came of a form. `form`: its name, for the page that shows `fields` in it again."""

    good: bool
    text: str
    next: str | None = None
    form: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)


class Messages:
    """Messages by a random word, each shown as often as its page is loaded."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Message] = OrderedDict()

    def keep(self, message: Message) -> str:
        """Keep a message; return its word."""
        word = secrets.token_urlsafe(9)
        if sum(map(len, message.fields.values())) > MAX_KEPT_TEXT:
            message = replace(message, fields={})
        self._kept[word] = message
        if len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)
        return word

    def find(self, word: str | None) -> Message | None:
        """Return the message of a word; None if there is none any more."""
        return self._kept.get(word or "")


async def read_form(request: Request) -> dict[str, str]:
    """Return the fields of a form, without those left empty. Raises InvalidInput."""
    body = await request.body()  # at most 1 MiB, which the middleware ensures
    try:
        pairs = parse_qsl(body.decode(), strict_parsing=bool(body), max_num_fields=MAX_FIELDS)
    except ValueError as error:
        raise InvalidInput(
            f"The form cannot be read: {error}.", next="Send it from the page again."
        ) from error
    return {name: value.strip() for name, value in pairs if value.strip()}


def new_key() -> str:
    """Return a random key for a form that creates something."""
    return secrets.token_urlsafe(16)


def key_of(fields: Mapping[str, str]) -> str | None:
    """Return the Idempotency-Key of the calls that a form makes. Raises InvalidInput.

    None if it has no key: it was not sent from a page.
    """
    key = fields.get(KEY_FIELD)
    if key is not None and not _KEY.fullmatch(key):
        raise InvalidInput(
            f"The form's field {KEY_FIELD!r} is no key of a page.", next="Send it from the page again."
        )
    return key


def back_to(target: str, word: str | None = None) -> RedirectResponse:
    """Redirect to a page of this gateway, with a message."""
    parts = urlsplit(target)
    if parts.scheme or parts.netloc or not target.startswith("/") or target.startswith(("//", "/\\")):
        raise InvalidInput(f"{target!r} is no page of this node.", next="Open / for the dashboard.")
    if word is not None:
        query = [pair for pair in parse_qsl(parts.query) if pair[0] != "m"]
        parts = parts._replace(query=urlencode([*query, ("m", word)]))
    return RedirectResponse(parts.geturl(), 303)


async def carry_out(
    messages: Messages,
    call: Awaitable[Any],
    *,
    done: str,
    then: str,
    otherwise: str,
    form: str = "",
    fields: Mapping[str, str] | None = None,
) -> RedirectResponse:
    """Await a call of the API; redirect to `then` with the text `done`, after an error to `otherwise`."""
    try:
        await call
    except MaoError as error:
        failed = Message(False, error.detail, error.next, form, fields or {})
        return back_to(otherwise, messages.keep(failed))
    return back_to(then, messages.keep(Message(True, done)))
