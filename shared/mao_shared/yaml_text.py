"""Write documents as YAML: plain words as they are, every other scalar as JSON. Pure.

JSON's scalars and escapes are YAML's too, so hostile strings stay on their line.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

_PLAIN_SCALAR = re.compile(r"[A-Za-z_/][A-Za-z0-9_./@+-]*(?::[A-Za-z0-9_./@+-]+)*")
_RESERVED_SCALARS = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}


def yaml_lines(value: Any, indent: str = "", quote: Callable[[Any], str] = json.dumps) -> list[str]:
    """Convert a document of dictionaries, lists and scalars to lines of YAML.

    `quote` returns a scalar as JSON; the default writes ASCII only.
    """
    lines: list[str] = []
    if isinstance(value, dict):
        pairs = [(f"{indent}{_scalar(key, quote)}:", item) for key, item in value.items()]
    else:
        pairs = [(f"{indent}-", item) for item in value]
    for head, item in pairs:
        if isinstance(item, dict | list) and item:
            lines += [head, *yaml_lines(item, indent + "  ", quote)]
        else:
            lines.append(f"{head} {_scalar(item, quote)}")
    return lines


def _scalar(value: Any, quote: Callable[[Any], str]) -> str:
    if isinstance(value, str) and _PLAIN_SCALAR.fullmatch(value) and value.lower() not in _RESERVED_SCALARS:
        return value
    return quote(value)
