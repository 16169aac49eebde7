"""The lines of `.gitattributes` that tell git which paths are LFS pointers. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection

_MARK = " filter=lfs diff=lfs merge=lfs -text"
_SPECIAL = re.compile(r"[\\*?\[\]]")


def line_for(path: str) -> str:
    """The line for one path, whatever characters it has."""
    return "/" + re.sub(r"\s", "[[:space:]]", _SPECIAL.sub(r"\\\g<0>", path)) + _MARK


def with_paths(text: str, add: Collection[str], drop: Collection[str]) -> str:
    """The file with the lines of `add`, without those of `drop`; what others wrote stays where it is."""
    added = {line_for(path) for path in add}
    gone = added | {line_for(path) for path in drop}
    kept = [line for line in text.split("\n") if line and line not in gone]
    lines = [*kept, *sorted(added)]
    if lines == [line for line in text.split("\n") if line]:
        return text
    return "".join(f"{line}\n" for line in lines)
