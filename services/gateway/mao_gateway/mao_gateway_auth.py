"""Who is let in. Pure decisions; `AuthMiddleware` at the end applies them.

The gateway is reached by loopback only: root, the user who runs the node and those in `MAO_LOCAL_USERS` need
no token, since the kernel says who calls (`callers`); all others do. What has to be kept out as well is the
web: a page in the operator's browser that posts to localhost, or whose name is made to resolve to it (DNS
rebinding). So Host must be a loopback name or an allowed one, Origin must be the page's own, and what
the browser itself marks as coming from another site is refused, but for following a link.

The gateway is reached by any other address, or a tokens file is set: a token is needed, as bearer or,
for browsers, as the password of basic authentication. The rules for Origin hold as well, since browsers
send basic authentication by themselves. Without a tokens file such a gateway does not start.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from mao_shared.errors import InvalidInput, MaoError, Unauthorized
from mao_shared.host.local_users import users_let_in
from mao_shared.mao_shared_logs import bind
from mao_shared.web.callers import (
    OPEN_PATHS,
    READY,
    called_host,
    called_port,
    check_origin,
    host_not_allowed,
)
from mao_shared.web.error_handlers import problem_response
from mao_shared.web.health import STRANGER

from .auth import HOW_TO_MAKE_ONE, own_token, owner, read_tokens
from .callers import Callers, WhoCalls
from .settings import GatewaySettings

_NOT_KNOWN = (
    "Without a token this node answers root, the user who runs it and those in MAO_LOCAL_USERS; "
    "this call is not known to be one of theirs."
)


@dataclass(frozen=True, slots=True)
class Policy:
    """`tokens`: name → digest, of which everybody needs one; empty on a gateway that is reached by loopback.

    `port`: the one that is listened at. `users`: uids that need no token on loopback; None: all of them.
    `sees_processes`: whether the gateway sees those of the machine. `token_file`: see `tokens.own_token`.
    `token_shown`: a command that prints that token. `supervisor`: see `Callers`.
    """

    hosts: frozenset[str] = frozenset()
    tokens: Mapping[str, str] = field(default_factory=dict)
    port: int = 8080
    users: frozenset[int] | None = frozenset()
    sees_processes: bool = True
    supervisor: int | None = None
    token_file: Path | None = None
    token_shown: str | None = None


def _allow(policy: Policy, headers: Headers) -> str:
    """What to do about a name; the port is the one at which the caller has got here."""
    at = called_port(headers) or policy.port
    return f"Call it by a loopback name, such as http://127.0.0.1:{at}, or add the name to MAO_ALLOWED_HOSTS."


def policy_from(settings: GatewaySettings) -> Policy:
    """Raises InvalidInput (`tokens-needed`, `tokens-invalid`, `local-users-invalid`): it must not start."""
    if settings.tokens_file is not None:
        return Policy(settings.hosts, read_tokens(settings.tokens_file), settings.port)
    if not is_loopback(settings.address):
        raise InvalidInput(
            f"The gateway would be reachable at {settings.address} by anybody, without a token.",
            code="tokens-needed",
            next=f"Set MAO_TOKENS_FILE, or bind it to 127.0.0.1. {HOW_TO_MAKE_ONE}",
        )
    users = users_let_in(settings.local_users, settings.owner_of)
    return Policy(
        settings.hosts,
        port=settings.port,
        users=None if settings.open_to_local_users else users,
        sees_processes=settings.owner_of is None,
        supervisor=settings.supervisor,
        token_file=settings.gateway_token_file,
        token_shown=settings.gateway_token_shown,
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine can be meant by the name or address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def decide(policy: Policy, method: str, headers: Headers) -> MaoError | None:
    """Why the request is refused, whoever calls, or None; on loopback `check_local` comes after it."""
    refusal = None if policy.tokens else check_host(policy, headers)
    refusal = refusal or check_origin(method, headers, policy.hosts, _allow(policy, headers))
    return refusal or (check_token(policy, headers) if policy.tokens else None)


def check_host(policy: Policy, headers: Headers) -> MaoError | None:
    """0.0.0.0 is allowed because the seed's own curl calls name it; browsers are stopped by Origin."""
    name = called_host(headers)
    if name and (is_loopback(name) or name == "0.0.0.0" or name in policy.hosts):  # noqa: S104
        return None
    return host_not_allowed(name, _allow(policy, headers))


def check_token(policy: Policy, headers: Headers) -> MaoError | None:
    token = sent_token(headers)
    if token is None:
        return Unauthorized(
            "This node wants a token.",
            next="Put the token into MAO_TOKEN, or the path of a file that holds it into MAO_TOKEN_FILE.",
        )
    if owner(policy.tokens, token) is None:
        return Unauthorized(
            "The token is not one of this node's.",
            code="token-unknown",
            next="Ask the node's operator for one.",
        )
    return None


def check_local(policy: Policy, token: str | None, headers: Headers) -> MaoError | None:
    """For a caller on loopback who is not known to be one of those let in. `token`: the gateway's own."""
    sent = sent_token(headers)
    if token is not None and sent is not None and hmac.compare_digest(token.encode(), sent.encode()):
        return None
    return Unauthorized(
        _NOT_KNOWN if sent is None else "The token is not this node's.",
        code="not-a-local-user" if sent is None else "token-unknown",
        next="Ask the node's operator to name you in MAO_LOCAL_USERS, or for a token to put into MAO_TOKEN"
        + (f" ({_where(policy)})." if token is not None else "."),
    )


def _where(policy: Policy) -> str:
    return f"printed by '{policy.token_shown}'" if policy.token_shown else f"the one in {policy.token_file}"


def sent_token(headers: Headers) -> str | None:
    """A bearer token, or the password of basic authentication."""
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return value.strip() or None
    if scheme.lower() != "basic":
        return None
    try:
        return base64.b64decode(value, validate=True).decode().partition(":")[2] or None
    except (binascii.Error, UnicodeDecodeError):
        return None


class AuthMiddleware:
    """ASGI middleware; answers refusals as problem documents."""

    def __init__(self, app: ASGIApp, *, policy: Policy, callers: WhoCalls | None = None) -> None:
        self.app = app
        self.policy = policy
        self._callers = callers or Callers(
            policy.users or frozenset(), sees_processes=policy.sees_processes, supervisor=policy.supervisor
        )
        self._token = own_token(policy.token_file) if policy.token_file is not None else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = None if scope["path"] in OPEN_PATHS - {READY} else await self._refusal(scope, headers)
        if refusal is not None and scope["path"] == READY:
            scope[STRANGER], refusal = True, None
        if refusal is not None:
            response = problem_response(refusal)
            if isinstance(refusal, Unauthorized):
                response.headers.append("WWW-Authenticate", 'Basic realm="mao", charset="UTF-8"')
            await response(scope, receive, send)
            return
        token = sent_token(headers) if self.policy.tokens else None
        with bind(caller=owner(self.policy.tokens, token) if token else None):
            await self.app(scope, receive, send)

    async def _refusal(self, scope: Scope, headers: Headers) -> MaoError | None:
        refusal = decide(self.policy, scope["method"], headers)
        everybody = self.policy.tokens or self.policy.users is None  # or `decide` has asked for a token
        if refusal is not None or everybody or await self._callers.let_in(scope):
            return refusal
        return check_local(self.policy, self._token, headers)
