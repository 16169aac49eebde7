"""Structured logs: one line an event, with service, run and request ids; secrets are masked."""

from __future__ import annotations

import logging
import re
import sys
from typing import Any

import structlog

_SECRET = re.compile(r"(token|secret|password|authorization|private_key)", re.IGNORECASE)
_URL_PASSWORD = re.compile(r"(?<=://)[^/@\s:]+:[^/@\s]+(?=@)")


def _mask(_: Any, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    for key, value in event.items():
        if _SECRET.search(key):
            event[key] = "•••"
        elif isinstance(value, str) and "://" in value:
            event[key] = _URL_PASSWORD.sub("•••", value)
    return event


def configure_logs(service: str, level: str = "info", fmt: str = "text") -> None:
    """Sends structlog and the standard library's logging to stderr; `fmt` is `text` or `json`."""
    renderer: Any = structlog.processors.JSONRenderer()
    if fmt == "text":
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=0)
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _mask,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processor=renderer, foreign_pre_chain=shared))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    structlog.contextvars.bind_contextvars(service=service)


def get_logger(name: str) -> Any:
    """A logger whose methods take an event name and keyword facts: `log.info("run.created", run=id)`."""
    return structlog.get_logger(name)


def bind(**facts: Any) -> Any:
    """Context manager: facts that every log line of the block (and tasks begun in it) carries."""
    return structlog.contextvars.bound_contextvars(**facts)
