"""Record files (CSV, JSON lines, JSON) as tables of text, matched by key and compared field by field.

Knows neither git nor HTTP. polars is loaded with the first file that is read, not before.

    table = load(content, format_of("results.csv"))
    keyed = choose_key([before, after], declared=None)
    compare(before, after, keyed)

Cells are text as it was observed, so that nothing is rounded or reformatted on the way: of a CSV file the
field, of a JSON file the value's JSON text. Null means that the record has no such field.
"""

from .compare import Comparison, RowChange, compare
from .keys import POSITION, Key, choose_key
from .load import Format, NotRecords, format_of, load
from .lookup import find_record, same_text

__all__ = [
    "POSITION",
    "Comparison",
    "Format",
    "Key",
    "NotRecords",
    "RowChange",
    "choose_key",
    "compare",
    "find_record",
    "format_of",
    "load",
    "same_text",
]
