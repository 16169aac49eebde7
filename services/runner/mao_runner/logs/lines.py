"""Numbered lines of a log: its end, a page from a line on, or those that contain a text. Blocking.

The file is read in blocks, since one line may be as large as the file. Only a newline ends a line, as for
`grep -n`. What a carriage return overwrites, such as a progress bar, is one line, of which the last part is
returned.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from mao_shared.models.log import LogLine

BLOCK = 1 << 20  # bytes
MAX_LINE_BYTES = 2000  # of a line in an answer


@dataclass(frozen=True, slots=True)
class LinesFound:
    """`total`: lines in the log; `matches`: those that contain the text; `open_line`: where the last line
    begins if no newline ends it yet, otherwise the size."""

    lines: list[LogLine]
    total: int
    size: int
    open_line: int
    matches: int | None = None


@dataclass(frozen=True, slots=True)
class _Line:
    number: int  # from 1
    start: int
    end: int  # without the newline


def read_lines(path: Path, first: int | None, limit: int) -> LinesFound:
    """Return up to `limit` lines from number `first` on; for None the last ones. Raises FileNotFoundError."""
    with path.open("rb") as file:
        blocks = [(0, 0)]  # offset of a block, newlines before it
        size = newlines = 0
        last = b""
        while block := file.read(BLOCK):
            size, newlines, last = size + len(block), newlines + block.count(b"\n"), block[-1:]
            blocks.append((size, newlines))
        total = newlines + (last not in (b"", b"\n"))
        begin = max(1, total - limit + 1 if first is None else first)
        block_index = max(0, bisect_left([before for _, before in blocks], begin - 1) - 1)
        offset, before = blocks[block_index]
        chosen = []
        for line, _ in _scan(file, offset, before):
            if line.number >= begin + limit or line.start >= size:
                break
            if line.number >= begin:
                chosen.append(line)
        is_open = last != b"\n" and bool(chosen) and chosen[-1].number == total
        return LinesFound(
            [_excerpt(file, line, None) for line in chosen],
            total,
            size,
            chosen[-1].start if is_open else size,
        )


def search_lines(path: Path, text: str, first: int, limit: int) -> LinesFound:
    """Return up to `limit` lines from number `first` on that contain a text, and count all that do.

    The case of ASCII letters is ignored. Raises FileNotFoundError.
    """
    wanted = re.compile(re.escape(text.encode()), re.IGNORECASE)
    with path.open("rb") as file:
        found: list[tuple[_Line, int]] = []
        matches = total = size = 0
        for line, hit in _scan(file, wanted=wanted, overlap=len(text.encode()) - 1):
            total, size = line.number, line.end
            if hit is None:
                continue
            matches += 1
            if line.number >= first and len(found) < limit:
                found.append((line, hit))
        lines = [_excerpt(file, line, hit) for line, hit in found]
        return LinesFound(lines, total, size, size, matches)


def _scan(
    file: BinaryIO,
    offset: int = 0,
    before: int = 0,
    wanted: re.Pattern[bytes] | None = None,
    overlap: int = 0,
) -> Iterator[tuple[_Line, int | None]]:
    """Yield the lines from an offset on, each with the offset of its first match.

    `before`: newlines before the offset; `overlap`: bytes by which a match may cross from block to block.
    """
    file.seek(offset)
    number, start, at = before + 1, offset, offset
    hit: int | None = None
    tail = b""
    while piece := file.readline(BLOCK):
        if wanted is not None and hit is None and (match := wanted.search(tail + piece)):
            hit = at - len(tail) + match.start()
        at += len(piece)
        tail = piece[-overlap:] if overlap else b""
        if piece.endswith(b"\n"):
            yield _Line(number, start, at - 1), hit
            number, start, hit, tail = number + 1, at, None, b""
    if start < at:
        yield _Line(number, start, at), hit


def _excerpt(file: BinaryIO, line: _Line, hit: int | None) -> LogLine:
    """Return what a terminal shows of a line, or the part with the match, at most `MAX_LINE_BYTES`."""
    place = file.tell()
    begin = line.start
    if hit is not None:
        begin = max(begin, min(hit - MAX_LINE_BYTES // 2, line.end - MAX_LINE_BYTES))
    text = _read(file, begin, line.end)
    if hit is None and b"\r" in text and begin + len(text) < line.end:  # a long progress bar
        begin = line.end - MAX_LINE_BYTES
        text = _read(file, begin, line.end)
    file.seek(place)
    after = line.end - begin - len(text)
    if not after:
        text = text.rstrip(b"\r")
    overwritten = text.rfind(b"\r", 0, len(text) if hit is None else hit - begin) + 1
    begin, text = begin + overwritten, text[overwritten:]
    shown, _, rest = text.partition(b"\r")
    return LogLine(
        number=line.number,
        text=shown.decode("utf-8", "replace"),
        before=begin - line.start,
        after=after + len(rest),
    )


def _read(file: BinaryIO, begin: int, end: int) -> bytes:
    file.seek(begin)
    return file.read(min(MAX_LINE_BYTES, end - begin))
