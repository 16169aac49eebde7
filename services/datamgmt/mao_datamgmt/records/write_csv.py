"""Tables to CSV, in the manner of an observed file and with its bytes where they serve."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Literal

from .dialect import raw_cells, raw_records
from .keys import Key
from .load import BOM, Format, separator_in
from .sources import Source, take_over

if TYPE_CHECKING:
    from polars import DataFrame, Series

_NOWHERE = b"\x1e"  # a separator that cuts no line
_SAMPLE = 200  # records by which the manner of quoting is told

Quoting = Literal["necessary", "always", "non_numeric"]


@dataclass(frozen=True, slots=True)
class CsvManner:
    separator: str = ","
    line_end: str = "\n"
    quoting: Quoting = "necessary"
    mark: bytes = b""  # before the heading
    ends: bool = True  # the last line as well


def csv_manner(model: bytes, how: Format, table: DataFrame) -> CsvManner:
    mark = BOM if model.startswith(BOM) else b""
    separator = separator_in(model, how)
    heading = model[len(mark) : model.find(b"\n") if b"\n" in model else None].decode()
    line_end = "\r\n" if heading.endswith("\r") else "\n"
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


def write_csv(table: DataFrame, sources: Sequence[Source], how: Format, key: Key) -> bytes:
    import polars

    model = sources[0]
    manner = csv_manner(model.content, how, model.table)
    heading = next(raw_records(_lines(model.content)), "")
    if table.columns != model.table.columns:
        heading = _csv_text(table.clear(), manner).removesuffix(manner.line_end)

    def raw_of(source: Source) -> Series | None:
        if source.table.columns != table.columns or not source.table.height:
            return None
        fits = source is model or separator_in(source.content, how) == manner.separator
        return _raw_rows(source.content) if fits else None

    def changed(text: str, place: int, others: Mapping[str, str | None]) -> str | None:
        cells = raw_cells(text, manner.separator)
        if len(cells) > table.width:
            return None
        cells += [""] * (table.width - len(cells))
        for name, other in others.items():
            at = table.columns.index(name)
            raw = [] if other is None else raw_cells(other, manner.separator)
            decided = _quoted(table[name][place] or "", manner.separator, like=cells[at])
            cells[at] = raw[at] if at < len(raw) else decided
        return manner.separator.join(cells)

    texts = take_over(table, sources, key, raw_of, changed)
    missing = texts.is_null().arg_true()
    written = [_csv_text(table[place], manner, heading=False) for place in missing.to_list()]
    bare = polars.Series([each.removesuffix(manner.line_end) for each in written], dtype=polars.String)
    lines = texts.scatter(missing, bare).to_frame("line")
    out = io.BytesIO()
    out.write(manner.mark + (heading + manner.line_end).encode())
    lines.write_csv(out, include_header=False, quote_style="never", line_terminator=manner.line_end)
    if not manner.ends:
        out.truncate(out.tell() - len(manner.line_end))
    return out.getvalue()


def _lines(content: bytes) -> Iterator[str]:
    return io.TextIOWrapper(io.BytesIO(content), encoding="utf-8-sig", newline="\n")


def _raw_rows(content: bytes) -> Series:
    """The text of each record but the heading."""
    import polars

    if b'"' in content or _NOWHERE in content:
        return polars.Series(list(islice(raw_records(_lines(content)), 1, None)), dtype=polars.String)
    lines = polars.read_csv(
        io.BytesIO(content),
        has_header=False,
        new_columns=["line"],
        separator=_NOWHERE.decode(),
        quote_char=None,
        infer_schema=False,
    )["line"].str.strip_suffix("\r")
    return lines.filter(lines.str.strip_chars(" ") != "")[1:]


def _quoted(text: str, separator: str, *, like: str) -> str:
    """A cell, quoted where it has to be or the one in whose place it comes is."""
    if not like.startswith('"') and not re.search(rf'["\r\n{re.escape(separator)}]', text):
        return text
    line = io.StringIO()
    csv.writer(line, quoting=csv.QUOTE_ALL, lineterminator="").writerow([text])
    return line.getvalue()
