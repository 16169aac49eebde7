"""How far the engine is with pulling an image, from the lines of its answer. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_FETCHED = ("Download complete", "Verifying Checksum", "Pull complete", "Already exists")


class PullProgress:
    """Sums the layers of an image; sizes are of the compressed layers in bytes."""

    def __init__(self) -> None:
        self._done: dict[str, int] = {}
        self._total: dict[str, int] = {}

    def note(self, line: Mapping[str, Any]) -> tuple[int, int]:
        """Take a line of the engine; return the bytes that are downloaded, and of how many known so far."""
        layer, status = str(line.get("id", "")), str(line.get("status", ""))
        detail = line.get("progressDetail") or {}
        if status == "Downloading" and isinstance(detail.get("current"), int):
            self._done[layer] = detail["current"]
            self._total[layer] = max(int(detail.get("total") or 0), detail["current"])
        elif status in _FETCHED and layer in self._total:
            self._done[layer] = self._total[layer]
        return sum(self._done.values()), sum(self._total.values())
