"""Record files (CSV, JSON lines, JSON) as tables of text, matched by key and compared field by field.

Knows neither git nor HTTP. polars is loaded with the first file that is read, not before.

    table = load(content, format_of("results.csv"))
    keyed = choose_key([before, after], declared=None)
    compare(before, after, keyed)

Cells are text as it was observed, so that nothing is rounded or reformatted on the way: of a CSV file the
field, of a JSON file the value's JSON text. Null means that the record has no such field.
"""

from mao_shared.json_text import parse_json

from .align import Aligned, Version, align, places_of
from .compare import Comparison, RowChange, compare
from .documents import Container, build, containers, leaves, load_document
from .judged import COMPUTED, Judge, Said, Verdict
from .keys import POSITION, Key, choose_key, has_key, vote_key
from .load import Format, NotRecords, Table, format_of, load
from .lookup import find_record, same_text
from .plain import vote_numbers
from .records_vote import Differences, Field, Truth, Votes, vote_table
from .records_write import manner_of, write_like
from .sources import Source
from .vote import RECORD, bind, bind_all, loosen
from .write import write_document

__all__ = [
    "COMPUTED",
    "POSITION",
    "RECORD",
    "Aligned",
    "Comparison",
    "Container",
    "Differences",
    "Field",
    "Format",
    "Judge",
    "Key",
    "NotRecords",
    "RowChange",
    "Said",
    "Source",
    "Table",
    "Truth",
    "Verdict",
    "Version",
    "Votes",
    "align",
    "bind",
    "bind_all",
    "build",
    "choose_key",
    "compare",
    "containers",
    "find_record",
    "format_of",
    "has_key",
    "leaves",
    "load",
    "load_document",
    "loosen",
    "manner_of",
    "parse_json",
    "places_of",
    "same_text",
    "vote_key",
    "vote_numbers",
    "vote_table",
    "write_document",
    "write_like",
]
