"""Parse and write JSON without changing the text of numbers: 1.10 and 1e500 stay as they are.

A number is represented by its text with a random prefix, since Python's encoder has no type for text that is
written verbatim.
"""

from __future__ import annotations

import json
import re
import secrets
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

_MARK = "n" + secrets.token_hex(16)  # YAML reads it as a string, too
MAX_DIGITS = 4300
"""Maximum digits of an integer that Python's json module reads."""
_NUMBER_TEXT = re.compile(f'"{_MARK}([^"]*)"')


def _keep(spelling: str) -> str:
    return _MARK + spelling


def parse_json(text: str, *, names_once: bool = False) -> Any:
    """Return the document with the text of its numbers (and NaN and Infinity) preserved.

    `names_once`: reject objects with duplicate names; otherwise the last one wins. Write the result with
    `render_json` only. Raises ValueError and RecursionError.
    """
    pairs = _object if names_once else None
    return json.loads(text, parse_float=_keep, parse_int=_keep, parse_constant=_keep, object_pairs_hook=pairs)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the name {twice[:100]!r} occurs twice in one object")
    return found


def render_json(value: Any, **options: Any) -> str:
    """Return a document from `parse_json` as JSON text; options as for json.dumps."""
    if isinstance(value, str) and value.startswith(_MARK):
        return value[len(_MARK) :]
    text = json.dumps(value, **options)
    return _NUMBER_TEXT.sub(r"\1", text) if _MARK in text else text


def is_number(value: Any) -> bool:
    """True if a value from `parse_json` is a number."""
    return isinstance(value, str) and value.startswith(_MARK)


def unmarked(text: str) -> str:
    """Remove the number prefixes from text that was not written by `render_json`."""
    return text.replace(_MARK, "")


def check_json(text: str) -> None:
    """Raise ValueError or RecursionError unless the text is one JSON value that every parser accepts.

    NaN, Infinity and lone surrogates are rejected; numbers may be as long or large as Python can parse.
    """
    value = json.loads(text, parse_float=str, parse_int=_short_enough, parse_constant=_refuse_constant)
    json.dumps(value, ensure_ascii=False).encode()


def _short_enough(spelling: str) -> str:
    if len(spelling.lstrip("-")) > MAX_DIGITS:
        raise ValueError(f"an integer has more than {MAX_DIGITS} digits")
    return spelling


def _refuse_constant(word: str) -> Any:
    raise ValueError(f"{word} is not a JSON number")


def comparable_json(text: str) -> Any:
    """Parse text that passes `check_json`; numbers compare equal only if their text is equal."""
    return json.loads(text, parse_float=partial(_unless_other, float), parse_int=partial(_unless_other, int))


def _unless_other(kind: type[float] | type[int], spelling: str) -> Any:
    number = kind(spelling)
    return number if repr(number) == spelling else {"\0number": spelling}


_BREAK = re.compile(r"[ \t]*[\r\n]+[ \t\r\n]*")


def on_one_line(text: str) -> str:
    """Return JSON text on one line, without indentation."""
    return _BREAK.sub("", text.strip(" \t\r\n"))


class RawJson(str):
    """A value as its JSON text, which is sent exactly as it was received."""

    __slots__ = ()


def same_json(raw: str, cell: str) -> bool:
    """Return True if a value's text in a file equals that of a cell."""
    return raw == cell or parse_json(raw) == parse_json(cell)


_SPACE = re.compile(r"[ \t\r\n]*")
_decode = json.JSONDecoder(parse_float=_keep, parse_int=_keep, parse_constant=_keep).raw_decode
Span = tuple[int, int]


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def element_spans(text: str) -> list[Span]:
    """Return the spans of the elements of a JSON list. Raises ValueError."""
    at = _skip(text, _skip(text, 0) + 1)
    spans: list[Span] = []
    while text[at] != "]":
        _, end = _decode(text, at)
        spans.append((at, end))
        at = _skip(text, end)
        if text[at] == ",":
            at = _skip(text, at + 1)
    return spans


def member_spans(text: str) -> dict[str, Span]:
    """Return the spans of the values of a JSON object, by name. Raises ValueError."""
    at = _skip(text, _skip(text, 0) + 1)
    spans: dict[str, Span] = {}
    while text[at] != "}":
        name, end = _decode(text, at)
        at = _skip(text, _skip(text, end) + 1)
        _, end = _decode(text, at)
        spans[name] = at, end
        at = _skip(text, end)
        if text[at] == ",":
            at = _skip(text, at + 1)
    return spans


def with_members(text: str, removed: Collection[str], added: Collection[str]) -> str:
    """Return an object's text without the members `removed`, and with `added` (`"name": value`) at its end.

    Raises ValueError.
    """
    at = inside = _skip(text, _skip(text, 0) + 1)
    parts: list[str] = []
    gaps: list[str] = []
    last = inside
    while text[at] != "}":
        begin = at
        name, end = _decode(text, at)
        _, end = _decode(text, _skip(text, _skip(text, end) + 1))
        if name not in removed:
            gaps += [text[last:begin]] if parts else []
            parts.append(text[begin:end])
        last = end
        at = _skip(text, end)
        if text[at] == ",":
            at = _skip(text, at + 1)
    usual = gaps[0] if gaps else ", "
    gaps += [usual] * (len(parts) + len(added) - 1 - len(gaps))
    parts += added
    middle = "".join(part + gap for part, gap in zip(parts, [*gaps, ""], strict=True)) if parts else ""
    return text[:inside] + middle + text[last:]


def member_text(text: str, name: str) -> str:
    """Return the text `"name": value` of an object's member. Raises ValueError and KeyError."""
    begin, end = member_spans(text)[name]
    colon = text.rindex(":", 0, begin)
    before = text[:colon].rstrip(" \t\r\n")
    start = next(
        at for at in range(len(before) - 2, -1, -1) if before[at] == '"' and _named(before[at:], name)
    )
    return text[start:end]


def _named(text: str, name: str) -> bool:
    try:
        return bool(json.loads(text) == name)
    except ValueError:
        return False


def leaf_spans(text: str) -> dict[str, Span]:
    """Return the spans of the leaf values, by JSON pointer. Raises ValueError."""
    spans: dict[str, Span] = {}
    _leaf_spans(text, _skip(text, 0), "", spans)
    return spans


def _leaf_spans(text: str, at: int, path: str, spans: dict[str, Span]) -> int:
    """Return the end of the value that begins at `at`."""
    opening = text[at]
    closing = {"{": "}", "[": "]"}.get(opening, "")
    inside = _skip(text, at + 1)
    if not closing or text[inside] == closing:
        end = inside + 1 if closing else _decode(text, at)[1]
        spans[path] = at, end
        return end
    at, place = inside, 0
    while text[at] != closing:
        step = str(place)
        if opening == "{":
            name, end = _decode(text, at)
            step = str(name).replace("~", "~0").replace("/", "~1")
            at = _skip(text, _skip(text, end) + 1)
        at = _skip(text, _leaf_spans(text, at, f"{path}/{step}", spans))
        place += 1
        if text[at] == ",":
            at = _skip(text, at + 1)
    return at + 1


@dataclass(frozen=True, slots=True)
class Part:
    """A value in a JSON text, and where it is.

    `start`: where it begins in its object or list, with its name if it has one; `begin`, `end`: of the value.
    `parts`: what an object or list has inside, None for other values.
    """

    name: str
    start: int
    begin: int
    end: int
    parts: Sequence[Part] | None = None


def parse_parts(text: str) -> Part:
    """Return the parts of a JSON text. Raises ValueError."""
    return _part(text, _skip(text, 0), None, "")


def _part(text: str, begin: int, start: int | None, name: str) -> Part:
    start = begin if start is None else start
    opening = text[begin]
    closing = {"{": "}", "[": "]"}.get(opening, "")
    if not closing:
        return Part(name, start, begin, _decode(text, begin)[1])
    at = _skip(text, begin + 1)
    parts: list[Part] = []
    while text[at] != closing:
        first, inner_name = at, ""
        if opening == "{":
            inner_name, end = _decode(text, at)
            at = _skip(text, _skip(text, end) + 1)
        parts.append(_part(text, at, first, inner_name))
        at = _skip(text, parts[-1].end)
        if text[at] == ",":
            at = _skip(text, at + 1)
    return Part(name, start, begin, at + 1, parts)


def join_parts(text: str, around: Part, pieces: Sequence[tuple[str, Part | None]]) -> str:
    """Return an object or list of a text with other contents, and the spaces that it has.

    Args:
        around: the object or list, with all that it has inside.
        pieces: the texts of the new contents, each with the part of `around` that it stands for, if any.
    """
    parts = around.parts or ()
    if not parts and not pieces:
        return text[around.begin : around.end]
    if not parts or not pieces:
        return text[around.begin] + ", ".join(piece for piece, _ in pieces) + text[around.end - 1]
    first = text[around.begin + 1 : parts[0].start]
    gaps = {part.start: text[before.end : part.start] for before, part in pairwise(parts)}
    usual = next(iter(gaps.values()), "," + (first or ("" if text.find('": ') < 0 else " ")))
    result = [text[around.begin], first]
    for number, (piece, part) in enumerate(pieces):
        if number:
            result.append(usual if part is None else gaps.get(part.start, usual))
        result.append(piece)
    return "".join([*result, text[parts[-1].end : around.end]])


def replace_spans(text: str, changes: list[tuple[Span, str]]) -> str:
    """Return the text with these spans replaced; they must not overlap."""
    pieces, at = [], 0
    for (begin, end), new in sorted(changes):
        pieces += [text[at:begin], new]
        at = end
    return "".join([*pieces, text[at:]])


def without_leaves(text: str, kept: Collection[str]) -> str:
    """Return the text with only the values whose JSON pointer is in `kept`; drops empty containers."""
    at = _skip(text, 0)
    found, end = _kept_part(text, at, "", kept)
    return text[:at] + (found or "") + text[end:]


def _kept_part(text: str, at: int, path: str, kept: Collection[str]) -> tuple[str | None, int]:
    """Return the kept part of the value that begins at `at` (or None) and the value's end."""
    closing = {"{": "}", "[": "]"}.get(text[at], "")
    inside = _skip(text, at + 1)
    if not closing or text[inside] == closing:
        end = inside + 1 if closing else _decode(text, at)[1]
        return (text[at:end] if path in kept else None), end
    opening, first, gap = text[at], text[at + 1 : inside], text[at + 1 : inside]
    pieces: list[str] = []
    at, place = inside, 0
    while True:
        begin, step = at, str(place)
        if opening == "{":
            name, end = _decode(text, at)
            step = str(name).replace("~", "~0").replace("/", "~1")
            at = _skip(text, _skip(text, end) + 1)
        found, end = _kept_part(text, at, f"{path}/{step}", kept)
        if found is not None:
            pieces += [gap if pieces else first, text[begin:at] + found]
        after = _skip(text, end)
        if text[after] == closing:
            whole = opening + "".join(pieces) + text[end : after + 1]
            return (whole if pieces else None), after + 1
        at, place = _skip(text, after + 1), place + 1
        gap = text[end:at]
