"""Structured logs: one line an event, with service, run and request ids; secrets are masked."""

from __future__ import annotations

import json
import logging
import math
import re
import sys
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from .lean import without
from .logs import MARK, is_secret_name, mask_urls

with without("rich"):
    import structlog

_PLAIN = re.compile(r"[^\s\"'=\x00-\x1f\x7f-\x9f]+")
_MARK = {"warning": "WARN ", "error": "ERROR ", "critical": "FATAL "}
_QUIET = ("uvicorn", "httpx", "httpcore", "asyncio", "urllib3", "docker", "aetcd", "grpc")
"""Libraries that say at `info` what our own lines say already."""


AGAIN_AFTER = 60.0  # seconds of an outage after which the log is told once more


class Outage:
    """Of something that is tried many times a minute: its beginning is news, and then every minute of it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._quiet_until = -math.inf

    def is_news(self) -> bool:
        now = self._clock()
        if now < self._quiet_until:
            return False
        self._quiet_until = now + AGAIN_AFTER
        return True

    def over(self) -> None:
        self._quiet_until = -math.inf


def _mask(_: Any, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    for key, value in event.items():
        if is_secret_name(key):
            event[key] = MARK
        elif isinstance(value, str):
            event[key] = mask_urls(value)
    return event


def _word(value: Any) -> str:
    """A value that a reader (and grep) takes as one word; line breaks never start a forged line."""
    text = value if isinstance(value, str) else str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)


def render_text(_: Any, __: str, event: structlog.typing.EventDict) -> str:
    """`07:10:43 runner     run.started run=… step=0`, in the machine's own time zone."""
    at = datetime.fromisoformat(event.pop("timestamp")).astimezone()
    service, level = event.pop("service", ""), event.pop("level", "info")
    what, trace = str(event.pop("event", "")), event.pop("exception", None)
    facts = "".join(f" {key}={_word(value)}" for key, value in event.items() if value is not None)
    what = what.replace("\n", "\\n") if trace is None else what
    line = f"{at:%H:%M:%S} {service:<10} {_MARK.get(level, '')}{what}{facts}"
    return line if trace is None else f"{line}\n{trace}"


_PROCESSORS: list[Any] = [
    structlog.contextvars.merge_contextvars,
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.format_exc_info,
    _mask,
]


def configure_plain() -> None:
    """What holds before `configure_logs`, in tests and in maoctl: the text form on stderr."""
    structlog.configure(
        processors=[*_PROCESSORS, render_text],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
        cache_logger_on_first_use=False,
    )


def configure_logs(service: str, level: str = "info", fmt: str = "text") -> None:
    """Sends structlog and the standard library's logging to stderr; `fmt` is `text` or `json`."""

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
    _to_stderr(level, fmt, shared)


def _to_stderr(level: str, fmt: str, shared: list[Any]) -> None:
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
    """A logger whose methods take an event name and keyword facts: `log.info("run.created", run=id)`."""
    return structlog.get_logger(name)


def bind(**facts: Any) -> Any:
    """Context manager: facts that every log line of the block (and tasks begun in it) carries."""
    return structlog.contextvars.bound_contextvars(**facts)


configure_plain()
