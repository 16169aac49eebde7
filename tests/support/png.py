"""Make a browser's picture smaller: PNG of at most 256 colours, written with the standard library alone.

Flat pages have few colours; those of the edges of letters, which are many, become the nearest of the others.
"""

from __future__ import annotations

import struct
import zlib
from collections import Counter
from collections.abc import Sequence

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_COLOURS = 256
COMMON_COLOURS = 192
_BPP = 3  # bytes of a pixel, as Chromium writes them


def reduce_colours(png: bytes) -> bytes:
    """Return an 8-bit RGB picture with a palette. Raises ValueError for other pictures."""
    width, height, data = _read(png)
    rows = _unfilter(data, width, height)
    pixels = Counter(row[at : at + _BPP] for row in rows for at in range(0, len(row), _BPP))
    by_count = [colour for colour, _ in sorted(pixels.items(), key=lambda pair: (-pair[1], pair[0]))]
    palette = _choose_palette(by_count)
    index = {colour: place for place, colour in enumerate(palette)}
    for colour in by_count:
        if colour in index:
            continue
        index[colour] = min(range(len(palette)), key=lambda place: (_distance(colour, palette[place]), place))
    lines = b"".join(
        b"\0" + bytes(index[row[at : at + _BPP]] for at in range(0, len(row), _BPP)) for row in rows
    )
    head = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    parts = [
        (b"IHDR", head),
        (b"PLTE", b"".join(palette)),
        (b"IDAT", zlib.compress(lines, 9)),
        (b"IEND", b""),
    ]
    return SIGNATURE + b"".join(chunk(kind, body) for kind, body in parts)


def _choose_palette(by_count: Sequence[bytes]) -> list[bytes]:
    """Return the commonest colours, and rare ones that are far from all others. Pure."""
    palette, rest = list(by_count[:COMMON_COLOURS]), list(by_count[COMMON_COLOURS:])
    nearest = [min(_distance(colour, known) for known in palette) for colour in rest]
    while rest and len(palette) < MAX_COLOURS:
        place = max(range(len(rest)), key=lambda index: (nearest[index], -index))
        chosen = rest.pop(place)
        nearest.pop(place)
        palette.append(chosen)
        nearest = [min(far, _distance(colour, chosen)) for far, colour in zip(nearest, rest, strict=True)]
    return palette


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _read(png: bytes) -> tuple[int, int, bytes]:
    """Return width, height and the filtered rows."""
    at, data, head = len(SIGNATURE), b"", b""
    while at < len(png):
        size, kind = struct.unpack(">I4s", png[at : at + 8])
        body = png[at + 8 : at + 8 + size]
        if kind == b"IHDR":
            head = body
        elif kind == b"IDAT":
            data += body
        at += size + 12
    width, height, depth, colour, *_, interlaced = struct.unpack(">IIBBBBB", head)
    if (depth, colour, interlaced) != (8, 2, 0):
        raise ValueError(f"not 8-bit RGB without interlacing: {(depth, colour, interlaced)}")
    return width, height, zlib.decompress(data)


def _unfilter(data: bytes, width: int, height: int) -> list[bytes]:
    """Undo the filters of the rows (PNG specification, section 9)."""
    size = width * _BPP
    rows: list[bytes] = []
    above = bytes(size)
    for number in range(height):
        start = number * (size + 1)
        kind, row = data[start], bytearray(data[start + 1 : start + 1 + size])
        for at in range(size if kind else 0):
            left = row[at - _BPP] if at >= _BPP else 0
            corner = above[at - _BPP] if at >= _BPP else 0
            row[at] = (row[at] + _predict(kind, left, above[at], corner)) & 0xFF
        above = bytes(row)
        rows.append(above)
    return rows


def _predict(kind: int, left: int, up: int, corner: int) -> int:
    if kind == 1:
        return left
    if kind == 2:
        return up
    if kind == 3:
        return (left + up) // 2
    guess = left + up - corner
    return min((left, up, corner), key=lambda value: abs(guess - value))  # the first of equals


def _distance(one: bytes, other: bytes) -> int:
    return sum((a - b) ** 2 for a, b in zip(one, other, strict=True))
