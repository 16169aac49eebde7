"""Writes tables as CSV in the style of an observed file, and with its bytes where possible."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from mao_vote.records.keys.key import Key
from mao_vote.records.reading.csv_text import (
    CsvPieces,
    raw_cells,
    split_pieces,
    split_record,
    strip_common_line_ends,
    uses_quotes,
)
from mao_vote.records.reading.load import BOM, RecordFormat, separator_in

from .sources import SourceFile, take_over

if TYPE_CHECKING:
    from polars import DataFrame, Series

_UNUSED_BYTE = b"\x1e"  # a separator that splits no line
_SAMPLE = 200  # records from which the style of quoting is inferred
Quoting = Literal["necessary", "always", "non_numeric"]


@dataclass(frozen=True, slots=True)
class CsvManner:
    separator: str = ","
    line_end: str = "\n"
    quoting: Quoting = "necessary"
    mark: bytes = b""  # before the heading
    ends: bool = True  # the last line as well


def csv_manner(model: bytes, file_format: RecordFormat, table: DataFrame) -> CsvManner:
    mark = BOM if model.startswith(BOM) else b""
    separator = separator_in(model, file_format)
    heading = model[len(mark) :].lstrip(b" \t\r\n").partition(b"\n")[0]
    line_end = "\r\n" if heading.endswith(b"\r") else "\n"
    ends = model.endswith(b"\n") or not model
    sample = table.head(_SAMPLE)
    styles: tuple[Quoting, ...] = ("necessary", "always", "non_numeric")
    for quoting in styles:
        manner = CsvManner(separator, line_end, quoting, mark, ends)
        if model.startswith((manner.mark + _csv_text(sample, manner).encode()).rstrip()):
            return manner
    return CsvManner(separator, line_end, "necessary", mark, ends)


def _csv_text(table: DataFrame, manner: CsvManner, *, heading: bool = True) -> str:
    import polars

    if manner.quoting == "necessary" and table.width > 1:  # polars would quote empty texts, but not nulls
        table = table.with_columns(
            polars.when(polars.col(name) != "").then(polars.col(name)).alias(name) for name in table.columns
        )
    return table.write_csv(
        separator=manner.separator,
        line_terminator=manner.line_end,
        quote_style=manner.quoting,
        include_header=heading,
    )


def write_csv(table: DataFrame, sources: Sequence[SourceFile], file_format: RecordFormat, key: Key) -> bytes:
    """Write records with the bytes of the sources where possible; the first source is the model.

    Blank lines and line ends of the model are kept. Columns that the result lacks are removed from a
    source's records.
    """
    import polars

    manner = csv_manner(sources[0].content, file_format, sources[0].table)
    separator = manner.separator
    projected = [_with_columns(source, table.columns) for source in sources]
    model = projected[0]
    lines = _Lines(manner, uses_quotes(_text(model), separator), all(map(_is_plain, projected)))

    def raw_texts(source: SourceFile) -> Series | None:
        if source.table.columns != table.columns or not source.table.height:
            return None
        if source is not model and separator_in(source.content, file_format) != separator:
            return None
        return lines.of(source, table.columns)

    def changed(text: str, place: int, others: Mapping[str, str | None]) -> str | None:
        before, record, end = split_record(text, separator)
        cells = lines.cells(record)
        if len(cells) > table.width:
            return None
        cells += [""] * (table.width - len(cells))
        for name, other in others.items():
            index = table.columns.index(name)
            raw = [] if other is None else lines.cells(split_record(other, separator)[1])
            is_single_empty = (
                table.width == 1 and not table[name][place]
            )  # otherwise it would be a blank line
            decided = (
                '""'
                if is_single_empty
                else _quote_like(table[name][place] or "", separator, like=cells[index])
            )
            cells[index] = raw[index] if index < len(raw) else decided
        return before + separator.join(cells) + end

    texts = take_over(table, projected, key, raw_texts, changed)
    if missing := texts.is_null().arg_true().to_list():
        written = [_csv_text(table[place], manner, heading=False) for place in missing]
        bare = polars.Series([line.removesuffix(manner.line_end) for line in written], dtype=polars.String)
        texts = texts.scatter(missing, bare)
    heading = None
    if table.columns != model.table.columns:
        heading = _csv_text(table.clear(), manner).removesuffix(manner.line_end)
    return lines.together(texts, model, heading)


def _with_columns(source: SourceFile, columns: Sequence[str]) -> SourceFile:
    """Return the source with only these columns, in this order, if it has all of them."""
    existing = source.table.columns
    if existing == columns or not set(columns) <= set(existing):
        return source
    return replace(source, table=source.table.select(columns), columns=existing)


def _text(source: SourceFile) -> str:
    return source.content.decode("utf-8-sig")


def _is_plain(source: SourceFile) -> bool:
    """True if each line is a record or the heading and all have the same line end, as in most files."""
    content = source.content
    if (
        source.columns
        or b'"' in content
        or _UNUSED_BYTE in content
        or content.startswith((b"\n", b"\r", b" ", b"\t"))
    ):
        return False
    ends, returns = content.count(b"\n"), content.count(b"\r")
    if returns not in (0, ends) or (returns and content.count(b"\r\n") != ends):
        return False
    return source.table.height + 1 == ends + (not content.endswith(b"\n"))


@dataclass(frozen=True, slots=True)
class _Lines:
    """Reads records as texts, without line ends if those of a file are all the same.

    `quoted`: quotes enclose cells. `plain`: all sources pass `_is_plain`, so that they can be split at lines.
    """

    manner: CsvManner
    quoted: bool
    plain: bool

    def of(self, source: SourceFile, columns: Sequence[str]) -> Series | None:
        """Return a source's records; None if their text cannot be used in the model's file."""
        import polars

        if not self.plain:
            if b'"' in source.content and uses_quotes(_text(source), self.manner.separator) != self.quoted:
                return None
            texts = strip_common_line_ends(self._pieces(source, columns).records)
            return polars.Series(texts, dtype=polars.String)
        lines = polars.read_csv(
            io.BytesIO(source.content.removeprefix(BOM)),
            has_header=False,
            new_columns=["line"],
            separator=_UNUSED_BYTE.decode(),
            quote_char=None,
            infer_schema=False,
        )["line"]
        return lines[1:] if b"\r" not in source.content else lines.str.strip_suffix("\r")[1:]

    def cells(self, record: str) -> list[str]:
        return raw_cells(record, self.manner.separator, quoted=self.quoted)

    def _pieces(self, source: SourceFile, columns: Sequence[str]) -> CsvPieces:
        found = split_pieces(_text(source), self.manner.separator, quoted=self.quoted)
        if not source.columns:
            return found
        places = [source.columns.index(name) for name in columns]
        heading, *rest = (self._cut(piece, places) for piece in [found.heading, *found.records])
        return CsvPieces(heading, rest, found.tail)

    def _cut(self, piece: str, places: Sequence[int]) -> str:
        """Return a record with only the cells at these positions."""
        before, record, end = split_record(piece, self.manner.separator)
        cells = self.cells(record)
        kept = [cells[place] if place < len(cells) else "" for place in places]
        return before + (self.manner.separator.join(kept) or '""') + end

    def together(self, texts: Series, model: SourceFile, heading: str | None) -> bytes:
        """Return the file: the given heading, or the model's, and the records."""
        end = self.manner.line_end
        out = io.BytesIO()
        out.write(self.manner.mark)
        if self.plain:
            first = model.content.removeprefix(BOM).split(b"\n", 1)[0].decode().removesuffix("\r")
            out.write(((first if heading is None else heading) + end).encode())
            texts.to_frame("line").write_csv(
                out, include_header=False, quote_style="never", line_terminator=end
            )
            if not self.manner.ends:
                out.truncate(out.tell() - len(end))
            return out.getvalue()
        pieces = self._pieces(model, model.table.columns)
        first = heading + end if heading is not None else pieces.heading
        end = next((split_record(piece, self.manner.separator)[2] for piece in pieces.records), "") or end
        ended = [line if line.endswith("\n") else line + end for line in [first, *texts.to_list()]]
        if not [pieces.heading, *pieces.records][-1].endswith("\n"):
            ended[-1] = ended[-1].removesuffix("\n").removesuffix("\r")
        out.write(("".join(ended) + pieces.tail).encode())
        return out.getvalue()


def _quote_like(text: str, separator: str, *, like: str) -> str:
    """Return a cell, quoted if necessary or if the cell that it replaces is."""
    if not like.startswith('"') and not re.search(rf'["\r\n{re.escape(separator)}]', text):
        return text
    line = io.StringIO()
    csv.writer(line, quoting=csv.QUOTE_ALL, lineterminator="").writerow([text])
    return line.getvalue()
