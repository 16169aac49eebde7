"""Where the gateway is and which token opens it: option, environment, default."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from .exits import CommandError, ExitCode

DEFAULT_PORT = "8080"
LOOPBACK = ("127.0.0.1", "localhost", "::1", "0.0.0.0")  # noqa: S104
NODE_TOKEN = "gateway.token"  # noqa: S105 (a file of the node's data directory)


@dataclass(frozen=True)
class Config:
    """`url` has no trailing slash; `token` is None where calls go without one."""

    url: str
    token: str | None = field(default=None, repr=False)


def load_config(environ: Mapping[str, str], url: str | None = None) -> Config:
    """`url` is the option `--url`. Raises Stop (usage) for an address or token file that cannot be used."""
    default = f"http://127.0.0.1:{environ.get('MAO_GATEWAY_PORT') or DEFAULT_PORT}"
    address = _checked(url or environ.get("MAO_URL") or default)
    return Config(address, _token(environ) or _node_token(environ, address))


def _checked(url: str) -> str:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        example = "http://127.0.0.1:8080"
        raise CommandError(
            ExitCode.USAGE,
            f"{url!r} is no address of a gateway.",
            f"Use one like {example} in --url or MAO_URL.",
        )
    return url.rstrip("/")


def _token(environ: Mapping[str, str]) -> str | None:
    if token := environ.get("MAO_TOKEN", "").strip():
        return token
    path = environ.get("MAO_TOKEN_FILE")
    if not path:
        return None
    try:
        return Path(path).expanduser().read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(
            ExitCode.AUTH, f"The token file {path} cannot be read: {error}", "Correct MAO_TOKEN_FILE."
        ) from error


def _node_token(environ: Mapping[str, str], url: str) -> str | None:
    """The token that a node on this machine keeps for its own user, where we may read it.

    It is told to nobody but the node: what listens at the port belongs to the file's owner, on whichever
    loopback address: `localhost` may mean ::1, and what is there need not be the node.
    """
    parts = urlsplit(url)
    kept = _kept_token(environ) if parts.hostname in LOOPBACK else None
    if kept is None:
        return None
    from mao_shared.host.sockets import listeners_of  # needed seldom, and every start is waited for

    token, owner = kept
    return token if token and listeners_of(parts.port or 80) == {owner} else None


def _kept_token(environ: Mapping[str, str]) -> tuple[str, int] | None:
    """Token and owner of its file: as a compose node's client is handed it, or from the data directory."""
    owner, colon, token = environ.get("MAO_NODE_TOKEN", "").partition(":")
    if colon and owner.isdecimal():
        return token, int(owner)
    data_dir = environ.get("MAO_DATA_DIR") or environ.get("importdir") or "var/node"
    try:
        with Path(data_dir, NODE_TOKEN).open(encoding="utf-8") as file:
            return file.read().strip(), os.fstat(file.fileno()).st_uid
    except (OSError, UnicodeDecodeError):
        return None  # there is no such node here, or it is not ours
