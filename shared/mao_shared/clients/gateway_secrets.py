"""MaoClient's calls about secrets for tools. No response contains a value."""

from __future__ import annotations

from collections.abc import Iterator

from mao_shared.models.secret import SecretsRotated, SecretState, SecretValue

from .gateway_http import GatewayHttp, url_path
from .responses import request_body


class SecretCalls:
    """The secrets of the node."""

    def __init__(self, http: GatewayHttp) -> None:
        self.http = http

    def list(self) -> Iterator[SecretState]:
        return iter(self.http.items("/secrets", SecretState))

    def get(self, name: str) -> SecretState:
        return self.http.get(url_path("secrets", name), SecretState)

    def set(self, name: str, value: str) -> SecretState:
        """Set a secret; runs that start from now on get this value."""
        body = request_body(SecretValue, value=value)
        return self.http.call("PUT", url_path("secrets", name), SecretState, json=body)

    def remove(self, name: str) -> None:
        """Remove a secret. Raises StillReferenced while an enrolment gives it to a tool."""
        self.http.execute("DELETE", url_path("secrets", name))

    def rotate(self) -> int:
        """Encrypt all secrets with a new key, and remove the old one. Return how many there are."""
        return self.http.call("POST", "/secrets/keys/rotate", SecretsRotated).secrets
