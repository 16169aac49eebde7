"""The record of a step in the message of its commit. Pure."""

from __future__ import annotations

import json
from typing import Any

RECORD_BEGIN = "=== Do not change lines below ==="
RECORD_END = "^^^ Do not change lines above ^^^"


def read_step_record(message: str) -> dict[str, Any] | None:
    """Return the record under `mao` in a commit message, or None if there is none."""
    _, begin, rest = message.partition(f"\n{RECORD_BEGIN}\n")
    text, end, _ = rest.rpartition(f"\n{RECORD_END}\n")
    if not (begin and end):
        return None
    try:
        record = json.loads(text).get("mao")
    except (ValueError, AttributeError, RecursionError):
        return None
    return record if isinstance(record, dict) else None
