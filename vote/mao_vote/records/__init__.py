"""Record files (CSV, JSON lines, JSON) as tables of text, matched by key and compared field by field.

Knows neither git nor HTTP. polars is loaded with the first file that is read, not before.

    table = load(content, record_format("results.csv"))
    keyed = choose_key([before, after], declared=None)
    compare(before, after, keyed)

Cells are text as it was observed, so that nothing is rounded or reformatted on the way: of a CSV file the
field, of a JSON file the value's JSON text. Null means that the record has no such field.
"""

from mao_shared.json_text import parse_json

from .align import Aligned, Version, align, number_records, ordered_places
from .ballots import COMPUTED, CellBallot, Judge, Verdict, vote_numbers
from .compare import RowChange, TableDiff, compare
from .field_summary import summarize_document, summarize_table
from .key_inference import choose_key, vote_key
from .keys import POSITION, Key, find_record, has_key, same_text
from .load import (
    Container,
    NotRecords,
    RecordFormat,
    Table,
    build_document,
    containers,
    iter_leaves,
    load,
    load_document,
    record_format,
)
from .reliability import Family
from .sources import Rows, SourceFile
from .vote import (
    RECORD,
    Camps,
    FieldDifferences,
    FieldReport,
    Incumbent,
    Rules,
    TableTally,
    VotedField,
    pack_records,
    pack_versions,
    unpack_records,
    vote_table,
)
from .write import text_style, write_document, write_like

__all__ = [
    "COMPUTED",
    "POSITION",
    "RECORD",
    "Aligned",
    "Camps",
    "CellBallot",
    "Container",
    "Family",
    "FieldDifferences",
    "FieldReport",
    "Incumbent",
    "Judge",
    "Key",
    "NotRecords",
    "RecordFormat",
    "RowChange",
    "Rows",
    "Rules",
    "SourceFile",
    "Table",
    "TableDiff",
    "TableTally",
    "Verdict",
    "Version",
    "VotedField",
    "align",
    "build_document",
    "choose_key",
    "compare",
    "containers",
    "find_record",
    "has_key",
    "iter_leaves",
    "load",
    "load_document",
    "number_records",
    "ordered_places",
    "pack_records",
    "pack_versions",
    "parse_json",
    "record_format",
    "same_text",
    "summarize_document",
    "summarize_table",
    "text_style",
    "unpack_records",
    "vote_key",
    "vote_numbers",
    "vote_table",
    "write_document",
    "write_like",
]
