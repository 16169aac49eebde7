"""The lines of `.gitattributes` that tell git which paths are LFS pointers. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection

LONGEST_LINE = 2047  # bytes; git passes longer ones over
_MARK = " filter=lfs diff=lfs merge=lfs -text"
_SPECIAL = re.compile(r"[\\*?\[\]]")
_BLANK = re.compile(r"[ \t\r\n]")  # what git parts words and lines by; other blanks are letters to it
_EXACT = re.compile(
    r"/(?:[^ \t\r\n\\*?\[\]]|\\[\\*?\[\]]|\[\[:space:\]\])+ filter=lfs diff=lfs merge=lfs -text"
)


def line_for(path: str) -> str:
    """The line for one path, whatever characters it has."""
    return "/" + _BLANK.sub("[[:space:]]", _SPECIAL.sub(r"\\\g<0>", path)) + _MARK


def exact_lines(text: str) -> set[str]:
    """The lines that name one path each, as MAO writes them."""
    return {line for line in text.split("\n") if _EXACT.fullmatch(line)}


def with_lines(text: str, lines: Collection[str]) -> str:
    """The file with these lines at its end, where nothing overrides them, and no other exact ones.

    What others wrote stays as it is.
    """
    others = "\n".join(line for line in text.split("\n") if not _EXACT.fullmatch(line))
    begin = others if others.endswith("\n") or not others or not lines else f"{others}\n"
    return begin + "".join(f"{line}\n" for line in sorted(lines))


def with_paths(text: str, add: Collection[str], drop: Collection[str]) -> str:
    """The file with the lines of `add`, without those of `drop`."""
    gone = {line_for(path) for path in drop}
    return with_lines(text, (exact_lines(text) - gone) | {line_for(path) for path in add})


def without_lines(data: bytes) -> bytes:
    """The file as it is without what MAO adds to it."""
    return with_lines(data.decode(errors="surrogateescape"), ()).encode(errors="surrogateescape")
