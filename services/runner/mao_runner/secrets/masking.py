"""Replaces known secret values in a stream of bytes, also where they are base64- or URL-encoded.

The result does not depend on how the stream is cut into pieces: at each position the longest value that
begins there is replaced, and what may become one with the next piece is held back.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator
from urllib.parse import quote, quote_plus

from mao_shared.logs import MASK
from mao_shared.models.secret import MIN_SECRET

MASK_BYTES = MASK.encode()
MIN_LINE = 8  # bytes of a line of a secret of several lines, such as a key, that is masked by itself


def spellings(value: str) -> set[bytes]:
    """Return the byte strings by which a secret may appear. Pure.

    A secret of several lines is masked line by line, since logs indent and wrap them.
    """
    lines = [line.strip() for line in value.splitlines()]
    lines = [line for line in lines if len(line) >= MIN_LINE] or [value.strip() or value]
    found: set[bytes] = set()
    for text in {value, *lines} if len(lines) == 1 else lines:
        raw = text.encode()
        urls = (quote(text, safe=""), quote(text), quote_plus(text))
        found |= {raw, json.dumps(text)[1:-1].encode(), json.dumps(text, ensure_ascii=False)[1:-1].encode()}
        found |= {url.encode() for url in urls} | {_lower_escapes(url).encode() for url in urls}
        found |= set(_base64_spellings(raw))
    if len(lines) > 1:  # encoded as a whole
        found |= set(_base64_spellings(value.encode()))
    return {spelling for spelling in found if len(spelling) >= MIN_SECRET}


def _lower_escapes(url: str) -> str:
    return re.sub(r"%[0-9A-F]{2}", lambda match: match[0].lower(), url)


def _base64_spellings(raw: bytes) -> Iterator[bytes]:
    """Yield what base64 makes of the value alone and inside of a longer text, at each of three offsets."""
    for encode in (base64.standard_b64encode, base64.urlsafe_b64encode):
        yield encode(raw)
        yield encode(raw).rstrip(b"=")
        for offset in range(3):
            encoded = encode(b"\0" * offset + raw)
            first = -(-offset * 8 // 6)  # characters that depend on what is before the value
            last = (offset + len(raw)) * 8 // 6  # and those that depend only on what is up to its end
            if last - first >= MIN_LINE:
                yield encoded[first:last]


class StreamMask:
    """Masks one stream: `feed` its pieces in order, then `end`."""

    def __init__(self, values: Iterable[str]) -> None:
        found = {spelling for value in values for spelling in spellings(value)}
        self._spellings = sorted(found, key=lambda one: (-len(one), one))
        self._pattern = re.compile(b"|".join(map(re.escape, self._spellings))) if found else None
        self._longest = len(self._spellings[0]) if found else 0
        self._firsts = re.compile(b"[" + b"".join(re.escape(bytes([one])) for one in _firsts(found)) + b"]")
        self._held = b""

    def feed(self, piece: bytes) -> bytes:
        """Return the next part of the masked stream, which may be empty."""
        if self._pattern is None:
            return piece
        return self._mask(self._held + piece, at_end=False)

    def end(self) -> bytes:
        """Return what was held back."""
        return self._mask(self._held, at_end=True) if self._pattern is not None else b""

    def masked(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the masked stream."""
        for piece in pieces:
            if kept := self.feed(piece):
                yield kept
        if rest := self.end():
            yield rest

    def _mask(self, data: bytes, *, at_end: bool) -> bytes:
        assert self._pattern is not None  # noqa: S101 (the callers have checked it)
        done, at = bytearray(), 0
        partial = len(data) if at_end else self._partial(data, 0)
        while (match := self._pattern.search(data, at)) is not None and match.start() < partial:
            done += data[at : match.start()] + MASK_BYTES
            at = match.end()
            if at > partial:
                partial = self._partial(data, at)
        done += data[at:partial]
        self._held = data[max(at, partial) :]
        return bytes(done)

    def _partial(self, data: bytes, begin: int) -> int:
        """Return the first offset from `begin` on where the data ends within a spelling, or its end."""
        for match in self._firsts.finditer(data, max(begin, len(data) - self._longest + 1)):
            rest = data[match.start() :]
            if any(len(one) > len(rest) and one.startswith(rest) for one in self._spellings):
                return match.start()
        return len(data)


def _firsts(spellings: Iterable[bytes]) -> list[int]:
    return sorted({spelling[0] for spelling in spellings}) or [0]
