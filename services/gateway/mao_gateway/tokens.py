"""Tokens: kept as digests in a file, one `name:sha256` a line; compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping
from pathlib import Path

from mao_shared.errors import InvalidInput

_LINE = re.compile(r"([A-Za-z0-9._-]{1,63}):([0-9a-f]{64})")
HOW_TO_MAKE_ONE = "Make a token with: python -m mao_gateway --new-token NAME"


def digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def new_token(name: str) -> tuple[str, str]:
    """A fresh token and the file's line for it. 256 random bits need no slow hash."""
    token = f"mao_{secrets.token_urlsafe(32)}"
    return token, f"{name}:{digest(token)}"


def read_tokens(path: Path) -> dict[str, str]:
    """Name → digest. Raises InvalidInput (`tokens-invalid`) with the line that is wrong."""
    try:
        lines = path.read_text("utf-8").splitlines()
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
