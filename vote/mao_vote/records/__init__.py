"""Record files (CSV, JSON lines, JSON) as tables of text, matched by key and compared field by field.

Knows neither git nor HTTP. polars is loaded with the first file that is read, not before.

    table = load(content, record_format("results.csv"))
    keyed = choose_key([before, after], declared=None)
    compare(before, after, keyed)

Cells are text as it was observed, so that nothing is rounded or reformatted on the way: of a CSV file the
field, of a JSON file the value's JSON text. Null means that the record has no such field.
"""

from mao_shared.json_text import parse_json

from .cells.ballots import COMPUTED, CellBallot, Judge, Verdict, vote_numbers
from .cells.field_vote import (
    Camps,
    FieldDifferences,
    FieldReport,
    Incumbent,
    Rules,
    TableTally,
    VotedField,
    sort_differences,
)
from .cells.memory import Memory, PastCells, extend_memory, is_within_bounds
from .cells.table import RECORD, RowVoter, pack_records, pack_versions, unpack_records, vote_table
from .cells.voices import Family
from .fields.types import may_be_observed
from .keys.align import Aligned, Version, align, number_records, ordered_places
from .keys.compare import RowChange, TableDiff, compare
from .keys.inference import choose_key, vote_key
from .keys.key import POSITION, Key, find_record, find_records, has_key, same_text
from .nested.changes import load_documents
from .nested.documents import Layout, Reader, empty_leaves, leaf_table
from .nested.lookup import find_value, is_inside
from .nested.object_fields import plan_object_fields, top_field, with_object_fields, without_contradictions
from .nested.paths import NamedFields, field_rule, leaf_pattern
from .nested.planner import plan_layout
from .nested.presence import vote_places
from .reading.load import (
    MAX_SHOWN_BYTES,
    NotRecords,
    RecordFormat,
    Table,
    cell_text,
    check_document,
    escape_step,
    is_record_list,
    load,
    load_json_document,
    record_format,
    record_table,
)
from .summary import summarize_document, summarize_table
from .writing.sources import Rows, SourceFile
from .writing.write import text_style, write_document, write_like
from .writing.write_nested import NestedText, write_nested_file

__all__ = [
    "COMPUTED",
    "MAX_SHOWN_BYTES",
    "POSITION",
    "RECORD",
    "Aligned",
    "Camps",
    "CellBallot",
    "Family",
    "FieldDifferences",
    "FieldReport",
    "Incumbent",
    "Judge",
    "Key",
    "Layout",
    "Memory",
    "NamedFields",
    "NestedText",
    "NotRecords",
    "PastCells",
    "Reader",
    "RecordFormat",
    "RowChange",
    "RowVoter",
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
    "cell_text",
    "check_document",
    "choose_key",
    "compare",
    "empty_leaves",
    "escape_step",
    "extend_memory",
    "field_rule",
    "find_record",
    "find_records",
    "find_value",
    "has_key",
    "is_inside",
    "is_record_list",
    "is_within_bounds",
    "leaf_pattern",
    "leaf_table",
    "load",
    "load_documents",
    "load_json_document",
    "may_be_observed",
    "number_records",
    "ordered_places",
    "pack_records",
    "pack_versions",
    "parse_json",
    "plan_layout",
    "plan_object_fields",
    "record_format",
    "record_table",
    "same_text",
    "sort_differences",
    "summarize_document",
    "summarize_table",
    "text_style",
    "top_field",
    "unpack_records",
    "vote_key",
    "vote_numbers",
    "vote_places",
    "vote_table",
    "with_object_fields",
    "without_contradictions",
    "write_document",
    "write_like",
    "write_nested_file",
]
