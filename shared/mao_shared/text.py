"""Text from outside made harmless for terminals and pages. Pure."""

from __future__ import annotations

import re

# C0 except tab and newline, DEL, C1, and bidirectional formatting: each can make a terminal or a page display
# something else than the text.
HARMFUL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_HARMFUL_IN_LINE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def _escape(match: re.Match[str]) -> str:
    char = match[0]
    code = f"\\x{ord(char):02x}" if ord(char) < 0x100 else f"\\u{ord(char):04x}"
    return _SHORT.get(char, code)


def harmless(text: str) -> str:
    """Return text with control characters escaped, except tabs and newlines."""
    return HARMFUL.sub(_escape, text.replace("\r\n", "\n"))


def harmless_line(text: str) -> str:
    """Return one line of text with all control characters escaped."""
    return _HARMFUL_IN_LINE.sub(_escape, text)


def one_line(text: str) -> str:
    """Return the lines joined by ` | `, or by a space after a colon."""
    return " | ".join(line.strip() for line in text.splitlines() if line.strip()).replace(": | ", ": ")
