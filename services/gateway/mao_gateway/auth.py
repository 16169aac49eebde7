"""Tokens: kept as digests in a file, one `name:sha256` a line; compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path

from mao_shared.errors import InvalidInput
from mao_shared.mao_shared_logs import get_logger

log = get_logger(__name__)

_LINE = re.compile(r"([A-Za-z0-9._-]{1,63}):([0-9a-f]{64})")
HOW_TO_MAKE_ONE = "Make a token with: python -m mao_gateway --new-token NAME"


def digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def new_token(name: str) -> tuple[str, str]:
    """A fresh token and the file's line for it. 256 random bits need no slow hash."""
    token = f"mao_{secrets.token_urlsafe(32)}"
    return token, f"{name}:{digest(token)}"


def own_token(path: Path) -> str | None:
    """The token in the file, which is made for nobody but our user to read where it is absent.

    It is for calls on loopback of which the kernel does not tell that they need none; `maoctl` finds the file
    by itself. None where there is none and none can be made: then such calls are refused.
    """
    try:
        return _kept(path) or _made(path)
    except (OSError, UnicodeDecodeError) as error:
        log.warning("gateway.no_token", file=str(path), error=str(error))
        return None


def _kept(path: Path) -> str | None:
    """None for a file that is absent, empty, or may be read by others: its token is no secret any more."""
    try:
        with path.open(encoding="utf-8") as file:
            private = os.fstat(file.fileno()).st_mode & 0o077 == 0
            return (file.read().strip() or None) if private else None
    except FileNotFoundError:
        return None


def _made(path: Path) -> str:
    token = f"mao_{secrets.token_urlsafe(32)}"
    beside = path.with_name(f".{path.name}.new")
    beside.unlink(missing_ok=True)
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(f"{token}\n")
    beside.replace(path)
    return token


def read_tokens(path: Path) -> dict[str, str]:
    """Name → digest. Raises InvalidInput (`tokens-invalid`) with the line that is wrong."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except PermissionError as error:
        raise InvalidInput(
            f"The tokens file {path} cannot be read by user {os.geteuid()}, as whom the gateway runs.",
            code="tokens-invalid",
            next=f"sudo chown {os.geteuid()} {path} (under compose in MAO_TOKENS_DIR), its folder too.",
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise _invalid(f"The tokens file {path} cannot be read: {error}.") from error
    tokens: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        match = _LINE.fullmatch(text)
        if match is None:
            raise _invalid(f"Line {number} of the tokens file {path} is not name:sha256.")
        tokens[match[1]] = match[2]
    if not tokens:
        raise _invalid(f"The tokens file {path} holds no token.")
    return tokens


def owner(tokens: Mapping[str, str], token: str) -> str | None:
    """Whose token it is; every digest is compared, so that time tells nothing."""
    sent = digest(token)
    found = [name for name, kept in tokens.items() if hmac.compare_digest(kept, sent)]
    return found[0] if found else None


def _invalid(detail: str) -> InvalidInput:
    return InvalidInput(detail, code="tokens-invalid", next=HOW_TO_MAKE_ONE)
