"""Access control: pure checks of requests, the tokens, and the middleware that applies them.

On a gateway that listens on loopback only, root, the user who runs the node and those in `MAO_LOCAL_USERS`
need no token, since the kernel identifies the caller (`callers`); all others do. Web pages in the operator's
browser are kept out too, whether they post to localhost or have a name that resolves to it (DNS rebinding):
Host must be a loopback name or an allowed one, Origin must match it, and requests that the browser marks as
cross-site are refused, except for following a link.

On a gateway at any other address, or with a tokens file, every caller needs a token, as bearer or, for
browsers, as the password of basic authentication. The rules for Origin apply too, since browsers send basic
authentication automatically. Without a tokens file such a gateway does not start.

The public status of datasets (`pages.public`) needs no token and may be shown by other sites.

Tokens are stored as digests in a file, one `name:sha256` per line, and compared in constant time.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ipaddress
import os
import re
import secrets
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from mao_shared.errors import InvalidInput, MaoError, Unauthorized
from mao_shared.host.sockets import allowed_users
from mao_shared.logs import bind, get_logger
from mao_shared.web.callers import OPEN_PATHS, READY, called_host, called_port, check_origin, host_not_allowed
from mao_shared.web.error_handlers import problem_response
from mao_shared.web.health import UNAUTHORISED_KEY

from .audit_calls import ACTOR_KEY
from .callers import CallerCheck, LocalCallers
from .settings import GatewaySettings

log = get_logger(__name__)
PUBLIC_PARTS = ("", "/badge.svg", "/style.css")
_TOKEN_LINE = re.compile(r"([A-Za-z0-9._-]{1,63}):([0-9a-f]{64})")
AUTH_NEXT_STEP = "Create a token with: python -m mao_gateway --new-token NAME"
_UNKNOWN_CALLER = (
    "Without a token this node answers root, the user who runs it and those in MAO_LOCAL_USERS; "
    "this call is not known to be one of theirs."
)


def token_digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def new_token(name: str) -> tuple[str, str]:
    """Return a new token and its line for the tokens file. 256 random bits need no slow hash."""
    token = f"mao_{secrets.token_urlsafe(32)}"
    return token, f"{name}:{token_digest(token)}"


def load_or_create_token(path: Path) -> str | None:
    """Return the gateway's own token, for callers on loopback who need one; `maoctl` finds the file itself.

    A new token is written if the file does not exist, is empty, or is accessible to other users. Returns None
    if that fails; callers who need a token are then refused.
    """
    try:
        with suppress(FileNotFoundError), path.open(encoding="utf-8") as file:
            private = os.fstat(file.fileno()).st_mode & 0o077 == 0
            if private and (token := file.read().strip()):
                return token
        token = f"mao_{secrets.token_urlsafe(32)}"
        new = path.with_name(f".{path.name}.new")
        new.unlink(missing_ok=True)
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(f"{token}\n")
        new.replace(path)
    except (OSError, UnicodeDecodeError) as error:
        log.warning("gateway.token_unusable", file=str(path), error=str(error))
        return None
    return token


def read_tokens(path: Path) -> dict[str, str]:
    """Read the tokens file; return name → digest. Raises InvalidInput (`tokens-invalid`)."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except PermissionError as error:
        raise InvalidInput(
            f"The tokens file {path} cannot be read by user {os.geteuid()}, which the gateway runs as.",
            code="tokens-invalid",
            next=f"Run: sudo chown {os.geteuid()} {path} and its folder (under compose in MAO_TOKENS_DIR).",
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise _tokens_invalid(f"The tokens file {path} cannot be read: {error}.") from error
    tokens: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        match = _TOKEN_LINE.fullmatch(text)
        if match is None:
            raise _tokens_invalid(f"Line {number} of the tokens file {path} is not name:sha256.")
        tokens[match[1]] = match[2]
    if not tokens:
        raise _tokens_invalid(f"The tokens file {path} holds no token.")
    return tokens


def token_owner(tokens: Mapping[str, str], token: str) -> str | None:
    """Return the token's name, None if it is unknown. All digests are compared, against timing attacks."""
    sent = token_digest(token)
    owners = [name for name, digest in tokens.items() if hmac.compare_digest(digest, sent)]
    return owners[0] if owners else None


def _tokens_invalid(detail: str) -> InvalidInput:
    return InvalidInput(detail, code="tokens-invalid", next=AUTH_NEXT_STEP)


@dataclass(frozen=True, slots=True)
class AccessPolicy:
    """The callers that need a token, and the host names by which the gateway may be called.

    Args:
        hosts: allowed host names in addition to loopback names.
        tokens: name → digest of the tokens, if every caller needs one; empty for a gateway on loopback.
        port: the gateway's port.
        users: uids that need no token on loopback; None for all.
        sees_processes: True if the gateway sees all processes of the machine.
        supervisor: see `LocalCallers`.
        token_file: see `load_or_create_token`.
        token_shown: a command that prints the token in that file.
        public: paths that anybody may GET.
    """

    hosts: frozenset[str] = frozenset()
    tokens: Mapping[str, str] = field(default_factory=dict)
    port: int = 8080
    users: frozenset[int] | None = frozenset()
    sees_processes: bool = True
    supervisor: int | None = None
    token_file: Path | None = None
    token_shown: str | None = None
    public: frozenset[str] = frozenset()


def _host_step(policy: AccessPolicy, headers: Headers) -> str:
    """Return the next step after a refused host name, with the port that the caller used."""
    port = called_port(headers) or policy.port
    return (
        f"Call it by a loopback name, such as http://127.0.0.1:{port}, or add the name to MAO_ALLOWED_HOSTS."
    )


def policy_from(settings: GatewaySettings) -> AccessPolicy:
    """Make the policy. Raises InvalidInput (`tokens-needed`, `tokens-invalid`, `local-users-invalid`)."""
    public = public_paths(settings.public_datasets)
    if settings.tokens_file is not None:
        tokens = read_tokens(settings.tokens_file)
        return AccessPolicy(settings.hosts, tokens, settings.port, public=public)
    if not is_loopback(settings.address):
        raise InvalidInput(
            f"Without tokens, anybody could use the gateway at {settings.address}.",
            code="tokens-needed",
            next=f"Set MAO_TOKENS_FILE, or bind it to 127.0.0.1. {AUTH_NEXT_STEP}",
        )
    users = allowed_users(settings.local_users, settings.owner_of)
    return AccessPolicy(
        settings.hosts,
        port=settings.port,
        users=None if settings.open_to_local_users else users,
        sees_processes=settings.owner_of is None,
        supervisor=settings.supervisor,
        token_file=settings.gateway_token_file,
        token_shown=settings.gateway_token_shown,
        public=public,
    )


def public_paths(datasets: Iterable[str]) -> frozenset[str]:
    """Return the paths of the public status of datasets (`pages.public`). Pure."""
    return frozenset(f"/public/{name}{part}" for name in datasets for part in PUBLIC_PARTS)


def is_loopback(host: str) -> bool:
    """True if the name or address can only mean this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_request(policy: AccessPolicy, method: str, headers: Headers) -> MaoError | None:
    """Return the error if the request is refused whoever sent it, or None (see also `check_local`). Pure."""
    refusal = None if policy.tokens else check_host(policy, headers)
    refusal = refusal or check_origin(method, headers, policy.hosts, _host_step(policy, headers))
    return refusal or (check_token(policy, headers) if policy.tokens else None)


def check_host(policy: AccessPolicy, headers: Headers) -> MaoError | None:
    """Check the Host header. The original's curl calls use 0.0.0.0; `check_origin` stops browsers there."""
    name = called_host(headers)
    if name and (is_loopback(name) or name == "0.0.0.0" or name in policy.hosts):  # noqa: S104
        return None
    return host_not_allowed(name, _host_step(policy, headers))


def check_token(policy: AccessPolicy, headers: Headers) -> MaoError | None:
    token = sent_token(headers)
    if token is None:
        return Unauthorized(
            "This node requires a token.",
            next="Set MAO_TOKEN to the token, or MAO_TOKEN_FILE to a file that contains it.",
        )
    if token_owner(policy.tokens, token) is None:
        return Unauthorized(
            "This node does not know the token.",
            code="token-unknown",
            next="Ask the node's operator for a valid token.",
        )
    return None


def check_local(policy: AccessPolicy, token: str | None, headers: Headers) -> MaoError | None:
    """Check the token of a caller on loopback who is not an admitted user. `token`: the gateway's own."""
    sent = sent_token(headers)
    if token is not None and sent is not None and hmac.compare_digest(token.encode(), sent.encode()):
        return None
    where = f"printed by '{policy.token_shown}'" if policy.token_shown else f"the one in {policy.token_file}"
    return Unauthorized(
        _UNKNOWN_CALLER if sent is None else "The token is not this node's.",
        code="not-a-local-user" if sent is None else "token-unknown",
        next="Ask the node's operator to name you in MAO_LOCAL_USERS, or for a token to put into MAO_TOKEN"
        + (f" ({where})." if token is not None else "."),
    )


def sent_token(headers: Headers) -> str | None:
    """Return a bearer token, or the password of basic authentication."""
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
    """ASGI middleware that refuses requests, with a problem document, by the policy."""

    def __init__(self, app: ASGIApp, *, policy: AccessPolicy, callers: CallerCheck | None = None) -> None:
        self.app = app
        self.policy = policy
        self._callers = callers or LocalCallers(
            policy.users or frozenset(), sees_processes=policy.sees_processes, supervisor=policy.supervisor
        )
        self._token = load_or_create_token(policy.token_file) if policy.token_file is not None else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = None if scope["path"] in OPEN_PATHS - {READY} else await self._refusal(scope, headers)
        if refusal is not None and scope["path"] == READY:
            scope[UNAUTHORISED_KEY], refusal = True, None
        if refusal is not None:
            response = problem_response(refusal)
            if isinstance(refusal, Unauthorized):
                response.headers.append("WWW-Authenticate", 'Basic realm="mao", charset="UTF-8"')
            await response(scope, receive, send)
            return
        token = sent_token(headers)
        owner = token_owner(self.policy.tokens, token) if self.policy.tokens and token else None
        if owner is not None:
            scope[ACTOR_KEY] = ("token", owner)
        with bind(caller=owner):
            await self.app(scope, receive, send)

    async def _refusal(self, scope: Scope, headers: Headers) -> MaoError | None:
        if scope["method"] == "GET" and scope["path"] in self.policy.public:
            return None if self.policy.tokens else check_host(self.policy, headers)
        refusal = check_request(self.policy, scope["method"], headers)
        unrestricted = self.policy.tokens or self.policy.users is None  # tokens are checked already
        if refusal is not None or unrestricted or await self._callers.admits(scope):
            return refusal
        refusal = check_local(self.policy, self._token, headers)
        if refusal is None:
            scope[ACTOR_KEY] = ("node-token", "the node's token")
        return refusal
