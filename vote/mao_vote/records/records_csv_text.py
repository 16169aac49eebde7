"""The text of CSV files: its rows, and its records as they are written. Blank lines are no records.

Quotes hold a cell where they stand around it; in a file in which none begins a cell they are letters, as in
5" disk. A file that has both is not read: readers differ about it.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

from .csv_text import LONE_RETURN, RETURNS, UnclearDialect, first_lines, quoted_cells, separator_of

_BLANKS = " \t"


class Rows:
    """The rows of a file, the heading first. Raises UnclearDialect while it is read."""

    def __init__(self, lines: Iterable[str], separator: str) -> None:
        self._separator = separator
        self._escape = "\\" + separator
        self._lines = iter(lines)
        self._taken: list[str] = []
        self._reader = csv.reader(self._remembered(), delimiter=separator, strict=True)
        self._quotes: str | None = None  # what they are
        self._width = 0

    @property
    def line_num(self) -> int:
        """Of the last line that was read, from 1."""
        return self._reader.line_num

    def _remembered(self) -> Iterator[str]:
        for line in self._lines:
            self._taken.append(line)
            yield line

    def __iter__(self) -> Iterator[list[str]]:
        return self

    def __next__(self) -> list[str]:
        while True:
            self._taken.clear()
            try:
                row = next(self._reader)
            except csv.Error as error:
                raise UnclearDialect(f"line {self.line_num} is not CSV: {error}") from None
            text = self._taken[0] if len(self._taken) == 1 else "".join(self._taken)
            if '"' in text:
                self._quotes = check_quotes(text, self._separator, self._quotes)
            elif self._escape in text:
                raise UnclearDialect(ESCAPES)
            elif "\r" in text and LONE_RETURN.search(text):
                raise UnclearDialect(RETURNS)
            elif len(row) < 2 and not "".join(row).strip(_BLANKS):
                continue
            self._check(row, text)
            return row

    def _check(self, row: list[str], text: str) -> None:
        if not self._width:
            self._width = len(row)
        elif len(row) > self._width:
            raise UnclearDialect(f"line {self.line_num} has more fields than its heading has names")
        elif len(row) < self._width and text.lstrip(_BLANKS.replace(self._separator, "")).startswith("#"):
            raise UnclearDialect(REMARKS)


ESCAPES = "a backslash stands before a separator, which some writers mean to be no separator then"
REMARKS = "it has comment lines, which CSV does not know"


def read_rows(lines: Iterable[str], only: str | None = None) -> Rows:
    """The rows, cut at what the first lines tell, or the file's name says (`only`). Raises UnclearDialect."""
    rest = iter(lines)
    head = list(first_lines(rest))
    return Rows(chain(head, rest), separator_of(head, only=only))


def check_quotes(text: str, separator: str, known: str | None = None) -> str:
    """What quotes are in whole records: `around` cells or `letters`; None of `known`: that is not told yet.

    Raises UnclearDialect where they are both.
    """
    outside = quoted_cells(separator).sub("", text)
    here = "letters" if '"' in outside else "around"
    begins = re.search(rf'(?:\A|[{re.escape(separator)}\n])"', outside)
    mixed = here == "letters" and (begins is not None or len(outside) != len(text))
    if mixed or known not in (None, here):
        raise UnclearDialect("some of its quotes stand around cells, and others within them")
    if "\\" + separator in outside:
        raise UnclearDialect(ESCAPES)
    if LONE_RETURN.search(outside):
        raise UnclearDialect(RETURNS)
    return here


def check_text(text: str, separator: str) -> bool:
    """Whether quotes hold cells in a whole file. Raises UnclearDialect for what `Rows` would refuse."""
    quoted = True
    if '"' in text:
        quoted = check_quotes(text, separator) == "around"
    elif "\\" + separator in text:
        raise UnclearDialect(ESCAPES)
    elif "\r" in text and LONE_RETURN.search(text):
        raise UnclearDialect(RETURNS)
    if "#" in text:
        _check_remarks(quoted_cells(separator).sub("", text) if quoted and '"' in text else text, separator)
    return quoted


def _check_remarks(outside: str, separator: str) -> None:
    heading, _, rest = outside.lstrip("\r\n").partition("\n")
    names = heading.count(separator) + 1
    for found in re.finditer(rf"^{_blank_lines(separator)}#[^\n]*", rest, re.MULTILINE):
        if found[0].count(separator) + 1 < names:
            raise UnclearDialect(REMARKS)


def begins_quoted(text: str, separator: str) -> bool:
    """Whether quotes hold cells in a file that `check_text` has let pass."""
    return '"' in text and re.search(rf'(?:\A|[{re.escape(separator)}\n])"', text) is not None


def _blank_lines(separator: str) -> str:
    """Of spaces and tabs, which are none where a tab separates cells."""
    return "[ ]*" if separator == "\t" else "[ \t]*"


def without_blank_lines(text: str, separator: str = ",", *, quoted: bool = True) -> str:
    """Without empty lines and lines of blanks, which are no records; what stands in quotes stays."""
    blanks = _blank_lines(separator)
    letters = "\n\r " if separator == "\t" else "\n\r \t"
    if text[:1] not in letters and not any(
        letter in text and "\n" + letter in text
        for letter in letters  # a single letter is found sooner
    ):
        return text
    cells = '("[^"]*+(?:""[^"]*+)*+")|' if quoted and '"' in text else "(?!)()|"
    blank = re.compile(rf"{cells}(?<=\n)(?:{blanks}\r?\n)+(?:{blanks}\Z)?|(?<=\n){blanks}\r?\Z")
    first = re.match(rf"(?:{blanks}\r?\n)+|{blanks}\Z", text)
    return blank.sub(lambda found: found[1] or "", text[first.end() :] if first else text)


@dataclass(frozen=True, slots=True)
class Written:
    """A file's text in pieces: each record with the blank lines before it and the end of its line."""

    heading: str
    records: list[str]
    tail: str  # blank lines after the last record


def pieces_of(text: str, separator: str, *, quoted: bool) -> Written:
    """`text` without byte order mark; put together again, the pieces are it."""
    cell = r'(?:"[^"]*"|[^"\n]++)*+' if quoted else r"[^\n]*+"
    blanks = _blank_lines(separator)
    record = re.compile(rf"(?:{blanks}\r?\n)*+(?!{blanks}\r?\Z){cell}(?:\n|\Z)")
    found = record.findall(text)
    return Written(found[0] if found else "", found[1:], text[sum(map(len, found)) :])


def parted(piece: str, separator: str) -> tuple[str, str, str]:
    """The blank lines before a record, the record, and its line's end, if it has one."""
    found = re.match(rf"(?s)((?:{_blank_lines(separator)}\r?\n)*)(.*?)(\r?\n)?\Z", piece)
    return (found[1], found[2], found[3] or "") if found else ("", piece, "")


def without_alike_ends(pieces: list[str]) -> list[str]:
    """Records without their lines' ends where these are all alike, so that those of another file serve."""
    ended = sum(piece.endswith("\n") for piece in pieces)
    returns = sum(piece.endswith("\r\n") for piece in pieces)
    if returns not in (0, ended):
        return pieces
    end = "\r\n" if returns else "\n"
    return [piece.removesuffix(end) for piece in pieces]


def raw_cells(record: str, separator: str, *, quoted: bool = True) -> list[str]:
    """The cells of a record as they are written, with their quotes."""
    if not quoted or '"' not in record:
        return record.split(separator)
    cells, held = [], ""
    for part in record.split(separator):
        held += part
        if held.count('"') % 2:
            held += separator
        else:
            cells.append(held)
            held = ""
    return [*cells, held] if held else cells
