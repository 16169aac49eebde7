"""Where the gateway is and which token opens it: option, environment, default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from .exits import ExitCode, Stop

DEFAULT_PORT = "8080"


@dataclass(frozen=True)
class Config:
    """`url` has no trailing slash; `token` is None where calls go without one."""

    url: str
    token: str | None = field(default=None, repr=False)


def load_config(environ: Mapping[str, str], url: str | None = None) -> Config:
    """`url` is the option `--url`. Raises Stop (usage) for an address or token file that cannot be used."""
    default = f"http://127.0.0.1:{environ.get('MAO_GATEWAY_PORT') or DEFAULT_PORT}"
    return Config(_checked(url or environ.get("MAO_URL") or default), _token(environ))


def _checked(url: str) -> str:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        example = "http://127.0.0.1:8080"
        raise Stop(
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
        raise Stop(
            ExitCode.AUTH, f"The token file {path} cannot be read: {error}", "Correct MAO_TOKEN_FILE."
        ) from error
