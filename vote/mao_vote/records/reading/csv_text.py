"""Parses the text of CSV files: separators, quotes, rows, and records as they are written.

The separator is the one with which all records have the same number of fields, ignoring separators in quotes.
If two fit, or none does, a file is not read as records: a wrong guess would split its cells, and rows would
be lost silently. (This is the "consistency" of van den Burg et al., Wrangling messy CSV files by detecting
row and type patterns, 2019, without its type score.)

Quotes around a cell enclose it; in a file in which no cell begins with one, they are text, as in 5" disk. A
file that has both is not read, since CSV readers treat it differently. Blank lines are not records.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice

SEPARATORS = (",", ";", "\t", "|")
SAMPLE = 1000  # records from which the separator is inferred
_UNSUPPORTED = (":", "~", "^", "\x1f", "\x01")  # unsupported separators that a single column may contain
_BLANKS = " \t"  # whitespace of a blank line
_NUMBER = re.compile(r"[+-]?(\d+[.,]?\d*|[.,]\d+)([eE][+-]?\d+)?")
_DECIMAL_COMMA = re.compile(r'"?[+-]?\d+,\d+([eE][+-]?\d+)?"?')
_TIME = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d([.,]\d+)?)?(Z|[+-]\d\d:?\d\d)?)?")
LONE_RETURN = re.compile(r"\r(?!\n)")
RETURNS = "some of its lines end with a carriage return alone"
ESCAPES = "a backslash stands before a separator, which some writers mean to be no separator then"
MAX_CELL_CHARACTERS = 128 << 10  # Python's own limit, unless a program sets another
LONG_CELL = f"it has a cell with more than {MAX_CELL_CHARACTERS:,} characters".replace(",", " ")
COMMENTS = "it has comment lines, which CSV does not know"


class UnclearDialect(ValueError):
    """The fields of a file cannot be separated reliably; the message is the reason.

    `former`: as of NotRecords.
    """

    def __init__(self, reason: str, former: str | None = None) -> None:
        super().__init__(reason)
        self.former = former or reason


def find_separator(lines: Iterable[str], sample: int = SAMPLE, only: str | None = None) -> str:
    """Infer the separator of a file from its first `sample` records; a comma if there is only one column.

    Args:
        lines: the lines with their ends, the first without a byte order mark.
        only: the separator that the file's name implies.

    Raises UnclearDialect, also if the first line does not look like a heading.
    """
    sample_lines = list(first_lines(lines, sample))
    try:
        return _find_separator(sample_lines, only)
    except UnclearDialect as error:
        if _has_long_cell("".join(sample_lines)):
            raise UnclearDialect(LONG_CELL, error.former) from None
        raise


def _find_separator(sample_lines: Sequence[str], only: str | None) -> str:
    widths = {separator: _count_fields(sample_lines, separator) for separator in SEPARATORS}
    if not any(widths.values()) and any(line.strip() for line in sample_lines):
        raise UnclearDialect(
            RETURNS if LONE_RETURN.search("".join(sample_lines)) else "its quotes do not fit together"
        )
    if only is None:
        separator = _separator(sample_lines, widths)
    else:
        separator, own_widths = only, widths[only]
        if own_widths and max(own_widths) > own_widths[0]:
            raise UnclearDialect("its records have more fields than its heading has names")
        wider = [other for other, counts in widths.items() if counts and counts[0] > 1]
        if wider and (not own_widths or own_widths[0] == 1):
            raise UnclearDialect(f"it has no tabs, and {_names(wider)} may separate its fields")
    _check_heading(sample_lines, separator)
    return separator


def _has_long_cell(text: str) -> bool:
    """True if a cell is longer than Python's reader accepts, whatever the separator."""
    cells = chain(
        re.split(r"[,;\t|\n]", text),
        (found[0] for separator in SEPARATORS for found in quoted_cells(separator).finditer(text)),
    )
    return len(text) > MAX_CELL_CHARACTERS and any(len(cell) > MAX_CELL_CHARACTERS for cell in cells)


def _separator(sample_lines: Sequence[str], widths: dict[str, list[int]]) -> str:
    equal = [
        separator for separator, found in widths.items() if found and found[0] > 1 and len(set(found)) == 1
    ]
    if len(equal) > 1:
        equal = [separator for separator in equal if quotes_fit(sample_lines, separator)] or equal
    if len(equal) == 1:
        return equal[0]
    if equal:
        raise UnclearDialect(f"{_names(equal)} may separate its fields alike")
    # Records without their last fields are common; records with more fields than names are not.
    short = [
        separator
        for separator, found in widths.items()
        if found and max(found[1:], default=0) == found[0] > 1
    ]
    if len(short) == 1:
        # separators that split the heading and more of the records
        split_counts = {
            separator: sum(width > 1 for width in row)
            for separator, row in widths.items()
            if row and row[0] > 1
        }
        if rivals := [
            separator for separator in split_counts if split_counts[separator] > split_counts[short[0]]
        ]:
            raise UnclearDialect(f"not all its records have the fields of {_names([short[0], *rivals])}")
        return short[0]
    if short:
        raise UnclearDialect(
            f"its records do not have as many fields as its heading with any of {_names(short)}"
        )
    if max((found[0] for found in widths.values() if found), default=1) > 1:
        raise UnclearDialect("its records have more fields than its heading has names, or all have fewer")
    return _single_column_separator(sample_lines, widths)


def _single_column_separator(sample_lines: Sequence[str], widths: dict[str, list[int]]) -> str:
    """Return a separator that splits no line. Raises UnclearDialect if the first line may be a title."""
    rows = [line.strip() for line in sample_lines if line.strip()]
    decimals = all(_DECIMAL_COMMA.fullmatch(row) for row in rows[1:] if "," in row)
    for separator, found in widths.items():
        if (
            found
            and 2 * sum(width > 1 for width in found) > len(found) - 1
            and not (separator == "," and decimals)
        ):
            raise UnclearDialect("its records have more fields than its heading has names")
    for other in _UNSUPPORTED:
        if len({row.count(other) for row in rows}) == 1 and other in rows[0]:
            raise UnclearDialect(f"{other!r} may separate its fields")
    words = [row.split() for row in rows]
    if len({len(row) for row in words}) == 1 < len(words) and len(words[0]) > 1:
        columns = ([row[place] for row in words[1:]] for place in range(len(words[0])))
        if any(all(map(_NUMBER.fullmatch, column)) for column in columns):
            raise UnclearDialect("blanks may separate its fields")
    unsplit = [separator for separator, found in widths.items() if found and max(found) == 1]
    if not unsplit and rows:
        raise UnclearDialect("its records have more fields than its heading has names")
    return unsplit[0] if unsplit else ","


def _check_heading(sample_lines: Sequence[str], separator: str) -> None:
    """Raise UnclearDialect if the first record does not look like a heading."""
    filled = (line for line in sample_lines if line.strip(_BLANKS + "\r\n"))
    names = next(csv.reader(filled, delimiter=separator), [])
    if names and names[0].startswith("\ufeff"):
        raise UnclearDialect("its heading begins with another byte order mark")
    cells = [name.strip() for name in names]
    if any("\0" in name for name in names):
        raise UnclearDialect("its heading has a NUL character")
    if cells and cells[0].lower().startswith("sep="):
        raise UnclearDialect("its first line is a hint for a spreadsheet, and no heading")
    nonempty = [cell for cell in cells if cell]
    if nonempty and all(_NUMBER.fullmatch(cell) or _TIME.fullmatch(cell) for cell in nonempty):
        raise UnclearDialect("its first line has nothing but numbers, so it may be no heading")
    ends = [(cell.startswith("'"), cell.endswith("'")) for cell in cells if len(cell) > 1]
    if (True, False) in ends and (False, True) in ends:
        raise UnclearDialect("its heading has single quotes, which may hold separators")


def first_lines(lines: Iterable[str], sample: int = SAMPLE) -> Iterator[str]:
    """Yield enough lines for a sample of records, without splitting a record of several lines."""
    quotes = 0
    for number, line in enumerate(lines, 1):
        quotes += line.count('"')
        yield line
        if (number >= sample and quotes % 2 == 0) or number >= 10 * sample:
            return


def _count_fields(lines: Sequence[str], separator: str) -> list[int]:
    """Return the number of fields of each record that is not blank; nothing if the quotes do not match."""
    reader = csv.reader(lines, delimiter=separator, strict=True)
    try:
        return [
            len(record) for record in islice(reader, SAMPLE) if "".join(record).strip(_BLANKS) or record[1:]
        ]
    except csv.Error:
        return []


def quotes_fit(lines: Iterable[str], separator: str) -> bool:
    """True if quotes only enclose whole cells, which a wrong separator would violate."""
    return '"' not in quoted_cells(separator).sub("", "".join(lines))


def quoted_cells(separator: str) -> re.Pattern[str]:
    """Return a pattern for quoted cells in the text of one or more records."""
    escaped = re.escape(separator)
    return re.compile(rf'(?:\A|(?<=[{escaped}\n]))"[^"]*+(?:""[^"]*+)*+"(?=[{escaped}]|\r?\n|\r?\Z)')


def _names(separators: Iterable[str]) -> str:
    shown = {"\t": "a tab"}
    return " and ".join(shown.get(separator, repr(separator)) for separator in separators)


class Rows:
    """Iterates over the rows of a file, the heading first. Raises UnclearDialect during iteration."""

    def __init__(self, lines: Iterable[str], separator: str) -> None:
        self._separator = separator
        self._escape = "\\" + separator
        self._lines = iter(lines)
        self._current_lines: list[str] = []
        self._reader = csv.reader(self._record_lines(), delimiter=separator, strict=True)
        self._quotes: str | None = None  # their role, see `check_quotes`
        self._width = 0

    @property
    def line_num(self) -> int:
        """The number of the last line read, from 1."""
        return self._reader.line_num

    def _record_lines(self) -> Iterator[str]:
        for line in self._lines:
            self._current_lines.append(line)
            yield line

    def __iter__(self) -> Iterator[list[str]]:
        return self

    def __next__(self) -> list[str]:
        while True:
            self._current_lines.clear()
            try:
                row = next(self._reader)
            except csv.Error as error:
                why = f"line {self.line_num} is not CSV"
                raise UnclearDialect(why, f"{why}: {error}") from error
            text = self._current_lines[0] if len(self._current_lines) == 1 else "".join(self._current_lines)
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
            raise UnclearDialect(COMMENTS)


def read_rows(lines: Iterable[str], only: str | None = None) -> Rows:
    """Iterate over the rows of a file. Raises UnclearDialect.

    The separator is inferred from the first lines unless the file's name implies it (`only`).
    """
    rest = iter(lines)
    head = list(first_lines(rest))
    return Rows(chain(head, rest), find_separator(head, only=only))


def check_quotes(text: str, separator: str, known: str | None = None) -> str:
    """Return the role of quotes in records: `around` cells, or `letters` in them.

    `known` is the role in earlier records, None if unknown. Raises UnclearDialect if both roles occur.
    """
    outside = quoted_cells(separator).sub("", text)
    role = "letters" if '"' in outside else "around"
    begins = re.search(rf'(?:\A|[{re.escape(separator)}\n])"', outside)
    mixed = role == "letters" and (begins is not None or len(outside) != len(text))
    if mixed or known not in (None, role):
        raise UnclearDialect("some of its quotes stand around cells, and others within them")
    if "\\" + separator in outside:
        raise UnclearDialect(ESCAPES)
    if LONE_RETURN.search(outside):
        raise UnclearDialect(RETURNS)
    return role


def check_text(text: str, separator: str) -> bool:
    """True if quotes enclose cells in a file. Raises UnclearDialect for the text that `Rows` would refuse."""
    quoted = True
    if '"' in text:
        quoted = check_quotes(text, separator) == "around"
    elif "\\" + separator in text:
        raise UnclearDialect(ESCAPES)
    elif "\r" in text and LONE_RETURN.search(text):
        raise UnclearDialect(RETURNS)
    if "#" in text:
        outside = quoted_cells(separator).sub("", text) if quoted and '"' in text else text
        heading, _, rest = outside.lstrip("\r\n").partition("\n")
        marked = re.finditer(rf"^{_blank_lines(separator)}#[^\n]*", rest, re.MULTILINE)
        if any(line[0].count(separator) < heading.count(separator) for line in marked):
            raise UnclearDialect(COMMENTS)
    return quoted


def uses_quotes(text: str, separator: str) -> bool:
    """True if quotes enclose cells in a file that has passed `check_text`."""
    return '"' in text and re.search(rf'(?:\A|[{re.escape(separator)}\n])"', text) is not None


def _blank_lines(separator: str) -> str:
    """Return a pattern for the whitespace of a blank line; tabs do not count if they separate cells."""
    return "[ ]*" if separator == "\t" else "[ \t]*"


def without_blank_lines(text: str, separator: str = ",", *, quoted: bool = True) -> str:
    """Remove blank lines outside of quotes, which are not records."""
    blanks = _blank_lines(separator)
    blank_starts = "\n\r " if separator == "\t" else "\n\r \t"
    if text[:1] not in blank_starts and not any(
        letter in text and "\n" + letter in text
        for letter in blank_starts  # a single character is found faster
    ):
        return text
    cells = '("[^"]*+(?:""[^"]*+)*+")|' if quoted and '"' in text else "(?!)()|"
    blank = re.compile(rf"{cells}(?<=\n)(?:{blanks}\r?\n)+(?:{blanks}\Z)?|(?<=\n){blanks}\r?\Z")
    first = re.match(rf"(?:{blanks}\r?\n)+|{blanks}\Z", text)
    return blank.sub(lambda found: found[1] or "", text[first.end() :] if first else text)


@dataclass(frozen=True, slots=True)
class CsvPieces:
    """A file's text in pieces: each record with the blank lines before it and its line end."""

    heading: str
    records: list[str]
    tail: str  # blank lines after the last record


def split_pieces(text: str, separator: str, *, quoted: bool) -> CsvPieces:
    """Split a text without byte order mark into pieces; joined, they are the text."""
    cell = r'(?:"[^"]*"|[^"\n]++)*+' if quoted else r"[^\n]*+"
    blanks = _blank_lines(separator)
    record = re.compile(rf"(?:{blanks}\r?\n)*+(?!{blanks}\r?\Z){cell}(?:\n|\Z)")
    found = record.findall(text)
    return CsvPieces(found[0] if found else "", found[1:], text[sum(map(len, found)) :])


def split_record(piece: str, separator: str) -> tuple[str, str, str]:
    """Split a piece into the blank lines before a record, the record, and its line end."""
    found = re.match(rf"(?s)((?:{_blank_lines(separator)}\r?\n)*)(.*?)(\r?\n)?\Z", piece)
    return (found[1], found[2], found[3] or "") if found else ("", piece, "")


def strip_common_line_ends(pieces: list[str]) -> list[str]:
    """Remove the line ends if all are the same, so that the records fit into a file with other ones."""
    ended = sum(piece.endswith("\n") for piece in pieces)
    returns = sum(piece.endswith("\r\n") for piece in pieces)
    if returns not in (0, ended):
        return pieces
    end = "\r\n" if returns else "\n"
    return [piece.removesuffix(end) for piece in pieces]


def raw_cells(record: str, separator: str, *, quoted: bool = True) -> list[str]:
    """Split a record into its cells as they are written, with their quotes."""
    if not quoted or '"' not in record:
        return record.split(separator)
    cells, pending = [], ""
    for part in record.split(separator):
        pending += part
        if pending.count('"') % 2:
            pending += separator
        else:
            cells.append(pending)
            pending = ""
    return [*cells, pending] if pending else cells
