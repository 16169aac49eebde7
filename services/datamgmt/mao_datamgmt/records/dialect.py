"""What separates the fields of a CSV file, told by whole records and not by its first line.

A separator is right when all records have the same number of fields with it; quotes are read on the way, so
that what stands inside them does not count. Where two are right, or none is, a file is not read as records:
a wrong guess would cut its cells, and rows would vanish without a word.
(The idea is that of "consistency" in van den Burg et al., Wrangling messy CSV files by detecting row and type
patterns, 2019, without its score of cell types.)
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Protocol

SEPARATORS = (",", ";", "\t", "|")
SAMPLE = 1000  # records that are looked at
LONGEST_FIELD = 1 << 20  # characters; a quote that is never closed would read to the end of the file


class Rows(Protocol):
    """What csv.reader returns."""

    line_num: int

    def __iter__(self) -> Iterator[list[str]]: ...

    def __next__(self) -> list[str]: ...


class UnclearDialect(ValueError):
    """Several separators fit, or none does; the message says why, for a person."""


def separator_of(lines: Iterable[str], sample: int = SAMPLE) -> str:
    """The separator of a file, by its first `sample` records; a comma where there is one column only.

    `lines` with their ends. Raises UnclearDialect.
    """
    kept = list(_first_lines(lines, sample))
    widths = {each: _widths(kept, each) for each in SEPARATORS}
    equal = [each for each, found in widths.items() if found and found[0] > 1 and len(set(found)) == 1]
    if len(equal) > 1:
        equal = [each for each in equal if _quotes_fit(kept, each)] or equal
    if len(equal) == 1:
        return equal[0]
    if equal:
        raise UnclearDialect(f"{_names(equal)} may separate its fields alike")
    # Records that leave out their last fields are common; one with more fields than names is none of it.
    short = [each for each, found in widths.items() if found and max(found) == found[0] > 1]
    if len(short) == 1:
        return short[0]
    if short:
        raise UnclearDialect(
            f"its records do not have as many fields as its heading with any of {_names(short)}"
        )
    heading = {each: found[0] for each, found in widths.items() if found}
    if not heading or max(heading.values()) == 1:
        return ","
    raise UnclearDialect("its records have more fields than its heading has names")


def read_rows(lines: Iterable[str], separator: str | None = None) -> Rows:
    """The rows, cut at `separator`, else at what the first lines tell; a blank line is `[]`.

    Raises UnclearDialect.
    """
    rest = iter(lines)
    head: list[str] = []
    if separator is None:
        head = list(_first_lines(rest, SAMPLE))
        separator = separator_of(head)
    return csv.reader(chain(head, rest), delimiter=separator)


def _first_lines(lines: Iterable[str], sample: int) -> Iterator[str]:
    """Enough lines for a sample of records, whole ones also where a field goes over several lines."""
    quotes = 0
    for number, line in enumerate(lines, 1):
        quotes += line.count('"')
        yield line
        if (number >= sample and quotes % 2 == 0) or number >= 10 * sample:
            return


def _widths(lines: Sequence[str], separator: str) -> list[int]:
    """How many fields the records have; blank lines are none. Empty where the quotes do not fit."""
    reader = csv.reader(lines, delimiter=separator, strict=True)
    try:
        return [len(record) for record in islice(reader, SAMPLE) if record]
    except csv.Error:
        return []


def _quotes_fit(lines: Sequence[str], separator: str) -> bool:
    """Whether cells with quotes are quoted as a whole, as no cell is that was cut at the wrong places."""
    cells = (cell.strip(" ") for record in raw_records(lines) for cell in raw_cells(record, separator))
    return all('"' not in cell or (cell.startswith('"') and cell.endswith('"')) for cell in cells)


def _names(separators: Iterable[str]) -> str:
    shown = {"\t": "a tab"}
    return " and ".join(shown.get(each, repr(each)) for each in separators)


_BLANK = re.compile(r'("(?:[^"]|"")*")|(?<=\n)(?: *\r?\n)+')


def without_blank_lines(text: str) -> str:
    """Without empty lines and lines of spaces, which are no records; what stands in quotes stays."""
    if text[:1] not in "\r\n " and not any(start in text for start in ("\n\n", "\n\r", "\n ")):
        return text
    first = re.match(r"(?: *\r?\n)+", text)
    return _BLANK.sub(lambda found: found[1] or "", text[first.end() :] if first else text)


def raw_records(lines: Iterable[str]) -> Iterator[str]:
    """The text of each record, the heading first, without its line's end; blank lines are none."""
    held = ""
    for line in lines:
        held += line
        if held.count('"') % 2 == 0:
            record = held.removesuffix("\n").removesuffix("\r")
            if record.strip(" "):
                yield record
            held = ""
    if held:
        yield held


def raw_cells(record: str, separator: str) -> list[str]:
    """The cells of a record as they are written, with their quotes."""
    if '"' not in record:
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
