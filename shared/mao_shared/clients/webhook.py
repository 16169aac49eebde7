"""Posting signed messages to addresses outside, in the manner of Standard Webhooks (standardwebhooks.com)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from datetime import datetime

import httpx

PREFIX = "whsec_"


def sign(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """The value of `webhook-signature`: HMAC-SHA256 over id, time (Unix seconds) and body."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    digest = hmac.new(_key(secret), signed, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


def _key(secret: str) -> bytes:
    """`whsec_` and base64 as the standard has it; any other secret is taken as it is."""
    if secret.startswith(PREFIX):
        try:
            return base64.b64decode(secret.removeprefix(PREFIX), validate=True)
        except binascii.Error:
            return secret.encode()
    return secret.encode()


class WebhookClient:
    """Follows no redirect and reads no answer beyond its status. `timeout` in seconds."""

    def __init__(self, timeout: float = 10.0, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._http = httpx.AsyncClient(timeout=timeout, follow_redirects=False, transport=transport)

    async def post(self, url: str, secret: str, message_id: str, now: datetime, body: bytes) -> str | None:
        """Sends one message; why it was not taken, None when it was (any 2xx)."""
        timestamp = int(now.timestamp())
        headers = {
            "content-type": "application/json",
            "webhook-id": message_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": sign(secret, message_id, timestamp, body),
        }
        try:
            async with self._http.stream("POST", url, content=body, headers=headers) as answer:
                return None if answer.is_success else f"it answered {answer.status_code}"
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return f"it cannot be reached: {str(error) or type(error).__name__}"

    async def close(self) -> None:
        await self._http.aclose()
