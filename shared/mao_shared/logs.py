"""One rule for what is never shown: secrets by their name, by their shape, and in URLs. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

MARK = "•••"
_NAME = re.compile(
    r"token|secret|passw|authorization|credential|private[_-]?key|api[_-]?key|access[_-]?key", re.IGNORECASE
)
_URL = re.compile(r"(https?://)[^/@\s]+(?=@)|(://)[^/@\s]*:[^/@\s]+(?=@)", re.IGNORECASE)
_SHAPE = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY|\bgh[pousr]_\w{20}|\bgithub_pat_\w{20}|\bglpat-[\w-]{16}"
    r"|\bAKIA[0-9A-Z]{16}\b|\bxox[abprs]-[\w-]{10}|\beyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]+"
)


def is_secret_name(name: str) -> bool:
    """Whether what bears this name is to stay unsaid."""
    return _NAME.search(name) is not None


def mask_urls(text: str) -> str:
    """The text without the passwords and tokens of its URLs."""
    return _URL.sub(rf"\1\2{MARK}", text) if "://" in text else text


def mask_value(text: str) -> str:
    """The text without URL passwords; nothing of it where it looks like a key or token."""
    return MARK if _SHAPE.search(text) else mask_urls(text)


def mask_env(env: Mapping[str, str]) -> dict[str, str]:
    """An environment, sorted by name, in which values of secret names and secret shapes are masked."""
    return {name: MARK if is_secret_name(name) else mask_value(env[name]) for name in sorted(env)}


def mask_command(words: Iterable[str]) -> list[str]:
    """A command line in which `--password x`, `--password=x`, `TOKEN=x` and secret shapes are masked."""
    masked: list[str] = []
    hide_next = False
    for word in words:
        name, equals, _ = word.partition("=")
        named = is_secret_name(name) and " " not in name
        if hide_next and not word.startswith("-"):
            masked.append(MARK)
        else:
            masked.append(f"{name}={MARK}" if named and equals else mask_value(word))
        hide_next = named and not equals and word.startswith("-")
    return masked
