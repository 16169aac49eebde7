"""Unreadable documents under a record's key, by kind of fault."""

from __future__ import annotations

import json
from typing import Any

KINDS = (
    "unknown-value",
    "changed-type",
    "truncated",
    "not-utf8",
    "empty",
    "no-object",
    "null",
    "deep",
    "another-name",
)


def corrupt(document: bytes, kind: str, *, key_field: str | None, enum_field: str | None = None) -> bytes:
    """Return the stored document with a fault of this kind, unchanged if the kind does not apply."""
    fields: dict[str, Any] = json.loads(document)
    first = next(iter(fields))
    values = {
        "unknown-value": _with(fields, enum_field or first, {"of a newer": "version"}),
        "changed-type": _with(fields, first, [1, 2]),
        "truncated": document[: len(document) // 2],
        "not-utf8": b'{"\xff\xfe": 1}',
        "empty": b"",
        "no-object": b'["a list"]',
        "null": b"null",
        "deep": b"[" * 50_000,
        "another-name": document if key_field is None else _with(fields, key_field, "somebody-else"),
    }
    return values[kind]


def _with(fields: dict[str, Any], name: str, value: Any) -> bytes:
    return json.dumps({**fields, "format": 2, name: value}).encode()
