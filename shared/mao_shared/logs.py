"""Structured logs with masked secrets, one line per event; blocks imports of heavy optional packages.

Masked are values with secret names, values that look like keys or tokens, and passwords in URLs.
"""

from __future__ import annotations

import json
import logging
import math
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any

MASK = "•••"
_NAME = re.compile(
    r"token|secret|passw|authorization|credential|private[_-]?key|api[_-]?key|access[_-]?key", re.IGNORECASE
)
_VARIABLE = re.compile(
    r"pgpass|passphrase|ssh_?key|(?:^|[_-])(?:pass|pwd|pin|auth|bearer|cookies?|keys?|session|signature)(?:$|[_-])",
    re.IGNORECASE,
)
"""Further names of variables and options; as names in events they would hide too much."""
_URL = re.compile(r"(https?://)[^/@\s]+(?=@)|(://)[^/@\s]*:[^/@\s]+(?=@)", re.IGNORECASE)
_SHAPE = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY|\bgh[pousr]_\w{20}|\bgithub_pat_\w{20}|\bglpat-[\w-]{16}"
    r"|\bAKIA[0-9A-Z]{16}\b|\bxox[abprs]-[\w-]{10}|\beyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]+"
)


def is_secret_name(name: str) -> bool:
    """Return True if a value with this name is secret."""
    return _NAME.search(name) is not None


def is_secret_variable(name: str) -> bool:
    """Return True if a variable or an option of this name probably has a secret value."""
    return is_secret_name(name) or _VARIABLE.search(name) is not None


def looks_secret(name: str, value: str) -> bool:
    """Return True if the value of a variable looks like a secret, by its name or by itself."""
    return is_secret_variable(name) or mask_value(value) != value


def mask_urls(text: str) -> str:
    """Return the text without the passwords and tokens of its URLs."""
    return _URL.sub(rf"\1\2{MASK}", text) if "://" in text else text


def mask_value(text: str) -> str:
    """Return the text without URL passwords, or only the mask if it looks like a key or token."""
    return MASK if _SHAPE.search(text) else mask_urls(text)


def mask_env(env: Mapping[str, str]) -> dict[str, str]:
    """Return the environment sorted by name, with secret values masked."""
    return {name: MASK if is_secret_variable(name) else mask_value(env[name]) for name in sorted(env)}


def mask_command(words: Iterable[str]) -> list[str]:
    """Return the command line with `--password x`, `--key=x`, `TOKEN=x` and tokens masked."""
    masked: list[str] = []
    hide_next = False
    for word in words:
        name, equals, _ = word.partition("=")
        named = is_secret_variable(name) and " " not in name
        if hide_next and not word.startswith("-"):
            masked.append(MASK)
        else:
            masked.append(f"{name}={MASK}" if named and equals else mask_value(word))
        hide_next = named and not equals and word.startswith("-")
    return masked


@contextmanager
def blocked_imports(*packages: str) -> Iterator[None]:
    """Block imports of packages that are not loaded yet.

    structlog and httpx load rich where maoctl has it installed; services never use it (docs/decisions/0006).
    """
    hidden = [name for name in packages if name not in sys.modules]
    # None makes the import system raise ModuleNotFoundError.
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


with blocked_imports("rich"):
    import structlog

_PLAIN = re.compile(r"[^\s\"'=\x00-\x1f\x7f-\x9f]+")
_LEVELS = {"warning": "WARN ", "error": "ERROR ", "critical": "FATAL "}
_QUIET = ("uvicorn", "httpx", "httpcore", "asyncio", "urllib3", "docker", "aetcd", "grpc")
"""Libraries whose `info` lines duplicate ours."""
OUTAGE_LOG_PERIOD = 60.0  # seconds


class Outage:
    """Limits the log lines of repeated failures to the first one and one per minute."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._quiet_until = -math.inf

    def is_news(self) -> bool:
        now = self._clock()
        if now < self._quiet_until:
            return False
        self._quiet_until = now + OUTAGE_LOG_PERIOD
        return True

    def over(self) -> None:
        self._quiet_until = -math.inf


def _mask(_: Any, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    for key, value in event.items():
        if is_secret_name(key):
            event[key] = MASK
        elif isinstance(value, str):
            event[key] = mask_urls(value)
    return event


def _word(value: Any) -> str:
    """Return the value as one word; quoting line breaks prevents forged log lines."""
    text = value if isinstance(value, str) else str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)


def render_text(_: Any, __: str, event: structlog.typing.EventDict) -> str:
    """Render an event as `07:10:43 runner     run.started run=… step=0`, in the local time zone."""
    at = datetime.fromisoformat(event.pop("timestamp")).astimezone()
    service, level = event.pop("service", ""), event.pop("level", "info")
    what, trace = str(event.pop("event", "")), event.pop("exception", None)
    facts = "".join(f" {key}={_word(value)}" for key, value in event.items() if value is not None)
    what = what.replace("\n", "\\n") if trace is None else what
    line = f"{at:%H:%M:%S} {service:<10} {_LEVELS.get(level, '')}{what}{facts}"
    return line if trace is None else f"{line}\n{trace}"


_PROCESSORS: list[Any] = [
    structlog.contextvars.merge_contextvars,
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.format_exc_info,
    _mask,
]


def configure_plain() -> None:
    """Log text to stderr; used before `configure_logs`, in tests and in maoctl."""
    structlog.configure(
        processors=[*_PROCESSORS, render_text],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
        cache_logger_on_first_use=False,
    )


def configure_logs(service: str, level: str = "info", fmt: str = "text") -> None:
    """Send structlog and the standard library's logging to stderr; `fmt` is `text` or `json`."""

    def add_service(_: Any, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        event.setdefault("service", service)
        return event

    shared = [*_PROCESSORS, add_service]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    renderer: Any = structlog.processors.JSONRenderer(default=str) if fmt == "json" else render_text
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
            foreign_pre_chain=shared,
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))


def get_logger(name: str) -> Any:
    """Return a logger that takes an event name and fields: `log.info("run.created", run=id)`."""
    return structlog.get_logger(name)


def bind(**facts: Any) -> Any:
    """Return a context manager that adds facts to all log lines of the block and of tasks started in it."""
    return structlog.contextvars.bound_contextvars(**facts)


configure_plain()
