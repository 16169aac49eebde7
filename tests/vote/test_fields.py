"""What a field is: its kind, which texts are the same value, and which are no observation."""

from __future__ import annotations

import json
from collections.abc import Sequence

import polars
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mao_shared.models.round import FieldRule
from mao_vote.records.fields import observed, values
from mao_vote.records.fields.number_style import (
    NumberStyle,
    are_decimals,
    are_integers,
    parse_decimals,
    parse_integers,
)
from mao_vote.records.fields.observed import WHITE_SPACE, Observed
from mao_vote.records.fields.time_values import (
    DATE_SIEVE,
    DURATION_SIEVE,
    TIME_SIEVE,
    parse_dates,
    parse_datetimes,
    parse_durations,
    parse_times,
)
from mao_vote.records.fields.types import DateOrder, FieldType
from mao_vote.records.fields.values import infer_field, is_observed, parse_values

Candidate = tuple[float | None, str | None]
Column = Sequence[str | None]
NOTHING: Candidate = (None, None)


def as_series(texts: Column) -> polars.Series:
    return polars.Series(list(texts), dtype=polars.String)


def field_of(*columns: Column, name: str = "x", is_json: bool = False, **rule: object) -> FieldType:
    """Return the type of a field of which each node has one of the columns."""
    series = [as_series(column) for column in columns]
    return infer_field(name, series, [1] * len(series), FieldRule.model_validate(rule), is_json=is_json)


def candidates(texts: Column, field: FieldType, *, is_json: bool = False) -> list[Candidate]:
    return parse_values(as_series(texts), field, is_json=is_json).rows()


def same(texts: Column, field: FieldType, *, is_json: bool = False) -> bool:
    """True if all texts are one value."""
    found = candidates(texts, field, is_json=is_json)
    assert NOTHING not in found
    return len(set(found)) == 1


def all_differ(texts: Column, field: FieldType, *, is_json: bool = False) -> bool:
    found = candidates(texts, field, is_json=is_json)
    assert NOTHING not in found
    return len(set(found)) == len(texts)


# kinds

KINDS: dict[str, list[tuple[str, list[str]]]] = {
    "integer": [
        ("count", ["1", "20", "-3", "0", "400"]),
        ("http", ["404", "403", "400", "200"]),
        ("tcp", ["80", "443", "8080", "22"]),
        ("year", ["1999", "2000", "2026"]),
        ("after_pandas", ["404.0", "403.0", "7.0"]),
        ("pulls", ["1,234", "12,345,678", "7"]),
        ("swiss", ["1'234", "7", "12'345"]),
        ("german", ["1.234.567", "12", "2.345.678"]),
        ("flag", ["0", "1", "1"]),
    ],
    "number": [
        ("t", ["21.5", "-0.3", "7", "8.25"]),
        ("rate", ["1e-05", "2.5e+3", "7"]),
        ("comma", ["2,50", "3,75", "0,125"]),
        ("german", ["1.234,5", "12,75", "3"]),
        ("french", ["1\u202f234,5", "12,75", "3"]),
        ("distance", ["12 km", "3.5 km", "7km"]),
        ("share", ["5%", "6.5 %", "99%"]),
        ("price", ["$5", "$1,234.50", "$-3"]),
        ("size", ["3.5 MB", "4 MB", "100MB"]),
        ("temperature", ["21.5 \u00b0C", "-3 \u00b0C", "7\u00b0C"]),
        ("fixed", ["1.10", "1.20", "2.55"]),
    ],
    "identifier": [
        ("v", ["3.10", "3.9", "3.1"]),
        ("software", ["1.2.3", "1.2", "1.3"]),
        ("x", ["08001", "10115", "80331"]),
        ("short", ["7e2", "700", "812"]),
        ("sha", ["1234567", "7e21234", "1234568"]),
        ("commit_id", ["a1b2c3d", "7e21234", "1234567"]),
        ("status_code", ["404", "403", "400"]),
        ("statusCode", ["404", "403", "400"]),
        ("Version", ["3.1", "3.2", "4.1"]),
        ("port", ["80", "443", "8080"]),
        ("repo-id", ["1", "2", "3"]),
        ("account_no", ["12", "13", "14"]),
        ("long", ["12345678901234567890", "12345678901234567891"]),
        ("card", ["48151623", "42481516", "99999999"]),
        ("gate", ["D5", "C36", "12A", "7"]),
        ("seat", ["12A", "13A", "14A"]),
        ("address", ["192.168.1.1", "10.0.0.1"]),
        ("uuid", ["0b5c8f2e-8d5e-4b5f-9a54-2f6f0b6c1a11", "1b5c8f2e-8d5e-4b5f-9a54-2f6f0b6c1a11"]),
    ],
    "date": [
        ("day", ["20260105", "20260330", "19991231"]),
        ("day", ["2026-01-05", "2026-03-30"]),
        ("day", ["2026/1/5", "2026/03/30"]),
        ("day", ["05.01.2026", "30.3.2026"]),
        ("day", ["01/05/2026", "03/30/2026"]),
        ("day", ["5 Jan 2026", "30 March 2026"]),
        ("day", ["Jan 5, 2026", "Sept. 30th, 2026"]),
        ("day", ["Mon, 5 Jan 2026", "Monday 30 March 2026"]),
        ("day", ["2026-01-05 00:00:00", "2026-03-30 00:00:00"]),
    ],
    "datetime": [
        ("at", ["2026-01-05T09:05:30Z", "2026-01-05T11:05:30+02:00"]),
        ("at", ["2026-01-05 09:05", "2026-01-05 10:05:30.125"]),
        ("at", ["20260105T090530Z", "20260105T090531Z"]),
        ("at", ["05.01.2026 09:05", "31.12.2026 10:00"]),
        ("at", ["Jan 5, 2026 9:05 PM", "Jan 6, 2026 at 9:05 AM"]),
        ("at", ["Mon, 05 Jan 2026 09:05:30 +0000", "Tue, 06 Jan 2026 09:05:30 GMT"]),
    ],
    "time": [
        ("departure", ["09:05", "21:20", "0:00"]),
        ("departure", ["09:05:30", "21:20:01.5"]),
        ("departure", ["9:05 PM", "12:00 AM", "9 p.m."]),
        ("departure", ["9:05pm", "11:20am"]),
    ],
    "duration": [
        ("took", ["1h30m", "45m", "2h"]),
        ("took", ["90 s", "1.5 s", "3s"]),
        ("took", ["5 minutes", "1 hour, 3 minutes"]),
        ("took", ["PT5M", "P1DT2H", "PT0.5S"]),
        ("took", ["1 day, 02:03:04", "2 days 00:00:01"]),
        ("took", ["350 ms", "1s"]),
    ],
    "boolean": [
        ("ok", ["true", "false"]),
        ("ok", ["True", "False", "TRUE"]),
        ("ok", ["yes", "no", "Yes"]),
        ("ok", ["t", "f", "t"]),
        ("ok", ["on", "off"]),
    ],
    "text": [
        ("name", ["Ada", "Grace", "Alan T."]),
        ("distance", ["12 km", "7 mi", "3 ft"]),
        ("seen", ["5 m", "3 km", "soon"]),
        ("remark", ["12:30 or later", "", "at noon"]),
        ("letter", ["t", "x", "f"]),
        ("hour", ["25:00h", "at 7", "99:99"]),
    ],
    "category": [("colour", ["red", "green", "blue"] * 20), ("sex", ["m", "f"] * 10)],
    "list": [("tags", ['["a", "b"]', "[]", "[1]"])],
    "object": [("meta", ['{"a": 1}', "{}"])],
}
FAMILIES = [(kind, name, texts) for kind, members in KINDS.items() for name, texts in members]
IDS = [f"{kind}-{texts[0]}" for kind, _, texts in FAMILIES]


@pytest.mark.parametrize(("kind", "name", "texts"), FAMILIES, ids=IDS)
def test_infer_field_kind(kind: str, name: str, texts: list[str]) -> None:
    found = field_of(texts, texts, texts, name=name)
    assert (found.kind, found.source) == (kind, "inferred")


@pytest.mark.parametrize(("kind", "name", "texts"), FAMILIES, ids=IDS)
def test_infer_field_odd_cells_of_a_minority_change_nothing(kind: str, name: str, texts: list[str]) -> None:
    plain = field_of(texts, texts, texts, name=name)
    odd = [*texts[1:], "?!", "see the log", "1.2.3.4", "0x10"]
    many = field_of(texts, odd, texts, odd, texts, name=name)
    assert many.kind == kind
    assert candidates(texts, many) == candidates(texts, plain)


@pytest.mark.parametrize(("kind", "name", "texts"), FAMILIES, ids=IDS)
def test_infer_field_one_odd_value_in_a_long_column_changes_nothing(
    kind: str, name: str, texts: list[str]
) -> None:
    long = [f"{text}" for text in texts for _ in range(20)] + ["see the log"]
    found = field_of(long, long, long, name=name)
    assert found.kind == ("category" if kind == "text" and len(set(long)) <= 50 else kind)


@pytest.mark.parametrize(
    ("kind", "name", "texts"),
    [family for family in FAMILIES if family[0] not in ("list", "object")],
    ids=[i for i in IDS if not i.startswith(("list", "object"))],
)
def test_infer_field_json_strings_are_what_their_contents_are(kind: str, name: str, texts: list[str]) -> None:
    quoted = [json.dumps(text, ensure_ascii=False) for text in texts]
    assert field_of(quoted, quoted, quoted, name=name, is_json=True).kind == kind


@pytest.mark.parametrize(
    "name", ["no", "lines_of_code", "open_ports", "paid", "ids", "status_count", "coded", ""]
)
def test_infer_field_names_of_counts(name: str) -> None:
    assert field_of(["12", "13", "404"], name=name).kind == "integer"


# the same value

SAME: list[tuple[str, list[str], list[str]]] = [
    ("number", ["1.5", "2.25"], ["1", "1.0", "1e0", "+1", "1.", " 1 "]),
    ("minus zero", ["1.5", "2.25"], ["0", "-0", "0.0", "-0.0"]),
    ("minus sign", ["1.5", "2.25"], ["-1.5", "\u22121.5"]),
    ("whole floats", ["1", "2", "3.0"], ["3", "3.0"]),
    ("thousands", ["1,234", "12,345,678"], ["1,234", "1234"]),
    ("thousands, decimals", ["1,234.5", "0.5"], ["1,234.50", "1234.5"]),
    ("comma", ["1,5", "0,25"], ["1,5", "1,50"]),
    ("spaces", ["1 234", "12"], ["1 234", "1\u00a0234", "1\u2009234", "1234"]),
    ("unit", ["12 km", "3.5 km"], ["12 km", "12km", "12.0 km"]),
    ("percent", ["12 %", "3.5%"], ["12 %", "12%"]),
    ("currency", ["$12", "$3.5"], ["$12", "$ 12", "12 $"]),
    ("date", ["2026-01-05", "2026-02-28"], ["2026-01-05", "20260105", "5 Jan 2026", "January 5th, 2026"]),
    ("date", ["05.01.2026", "31.01.2026"], ["05.01.2026", "5.1.2026", "2026-01-05", "05/01/2026"]),
    ("date", ["01/05/2026", "01/31/2026"], ["01/05/2026", "1/5/2026", "2026-01-05"]),
    ("time", ["21:05", "09:00"], ["21:05", "9:05 PM", "09:05pm", "21:05:00", "9:05 p.m."]),
    ("midnight", ["21:05", "09:00"], ["00:00", "0:00", "12:00 AM", "12 am"]),
    (
        "datetime",
        ["2026-01-05T10:00:00Z", "2026-01-06T10:00:00Z"],
        [
            "2026-01-05T10:00:00Z",
            "2026-01-05 12:00+02:00",
            "20260105T100000+0000",
            "2026-01-05T05:00:00.000-05",
        ],
    ),
    ("duration", ["1h30m", "2h"], ["1h30m", "90 min", "1.5 hours", "PT1H30M", "5400s", "0 days 01:30:00"]),
    ("boolean", ["true", "false"], ["true", "True", "TRUE", "yes", "on", "t"]),
    ("Unicode", ["caf\u00e9", "Ada"], ["caf\u00e9", "cafe\u0301"]),
    ("list", ["[1, 2]", "[]"], ["[1,2]", "[1, 2]", "[ 1 ,2 ]"]),
    ("object", ['{"a": 1, "b": 2}', "{}"], ['{"b":2,"a":1}', '{"a": 1, "b": 2}']),
]


@pytest.mark.parametrize(
    ("what", "column", "texts"), SAME, ids=lambda value: value if type(value) is str else ""
)
def test_parse_values_spellings_of_one_value(what: str, column: list[str], texts: list[str]) -> None:
    assert same(texts, field_of(column, column, column))


DIFFERENT: list[tuple[str, str, list[str], list[str]]] = [
    ("HTTP codes", "x", ["404", "403", "400"], ["404", "403", "400"]),
    ("ports", "port", ["80", "8080"], ["8080", "8081"]),
    ("years", "year", ["2019", "2020"], ["2019", "2020"]),
    ("dates", "day", ["20260105", "20260330"], ["20260105", "20260330"]),
    ("ids", "id", ["1001", "1002"], ["1001", "1002"]),
    ("versions", "version", ["3.9", "3.11"], ["3.10", "3.1"]),
    ("versions", "x", ["3.9", "3.10", "3.1"], ["3.10", "3.1"]),
    ("postcodes", "x", ["10115", "8001"], ["08001", "8001"]),
    ("postcodes", "zip", ["10115", "8001"], ["08001", "8001"]),
    ("hex", "x", ["700", "812"], ["7e2", "700"]),
    ("hex", "x", ["7e2", "700", "812"], ["7e2", "700"]),
    ("git", "commit", ["7e21234", "1234567", "a1b2c3d"], ["7e1", "70", "70.0"]),
    ("long ids", "x", ["12345678901234567890"] * 3, ["12345678901234567890", "12345678901234567891"]),
    ("signed phones", "x", ["+41791234567", "+41791234568"], ["+41791234567", "41791234567"]),
    ("units", "x", ["12 km", "13 km"], ["12 km", "12 mi", "12"]),
    ("unit in a plain column", "x", ["12.5", "13"], ["12.5", "12.5 km"]),
    ("case", "x", ["Ada", "Grace"], ["ada", "Ada"]),
    ("space", "x", ["Ada", "Grace"], ["Ada", "Ada "]),
    ("order", "x", ["[1,2]", "[]"], ["[1,2]", "[2,1]"]),
    ("a thousand or not", "x", ["1,234", "1234", "5"], ["1,234", "1234", "1.234"]),
    ("infinity", "x", ["1.5", "2.5"], ["inf", "1e999", "-inf"]),
    ("no such day", "x", ["2026-01-05", "2026-02-28"], ["2026-02-30", "2026-02-28"]),
    ("no such time", "x", ["21:05", "09:05"], ["24:05", "25:00", "00:05"]),
    ("no boolean", "x", ["true", "false"], ["true", "1", "false", "0"]),
]


@pytest.mark.parametrize(
    ("what", "name", "column", "texts"), DIFFERENT, ids=lambda value: value if type(value) is str else ""
)
def test_parse_values_texts_that_differ(what: str, name: str, column: list[str], texts: list[str]) -> None:
    assert all_differ(texts, field_of(column, column, column, name=name))


def test_parse_values_numbers_are_in_units_of_their_kind() -> None:
    def number(text: str, *column: str) -> float | None:
        return candidates([text], field_of(column, column))[0][0]

    assert number("9:05 PM", "9:05 PM", "10:00") == 21 * 3600 + 5 * 60
    assert number("24:00", "24:00", "10:00") == 86400
    assert number("1970-01-03", "1970-01-03", "2000-02-29") == 2
    assert number("1970-01-01T01:00:00.5+01:00", "1970-01-01T01:00:00.5+01:00") == 0.5
    assert number("-1h30m", "1h30m", "2h") == -5400
    assert number("12 km", "12 km", "3.5 km") == 12


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["1,234", "0,5"], 1.234),
        (["1,234", "12,75"], 1.234),
        (["1,234", "12,345,678"], 1234),
        (["1,234", "1,234.5"], 1234),
        (["1,234", "999", "12"], 1234),
        (["1,234", "2.75"], 1234),
    ],
)
def test_parse_values_comma_is_what_it_is_in_the_column(texts: list[str], expected: float) -> None:
    assert candidates(["1,234"], field_of(texts, texts)) == [(expected, None)]


@pytest.mark.parametrize(
    "nodes",
    [
        (["1.5", "2.25"], ["1,5", "2,25"], ["1.5", "2.25"]),
        (["1234567", "7"], ["1,234,567", "7"], ["1 234 567", "7"]),
        (["2026-01-05", "2026-01-31"], ["05.01.2026", "31.01.2026"], ["20260105", "20260131"]),
        (["21:05", "9:00"], ["9:05 PM", "9:00 AM"], ["21:05:00", "09:00:00"]),
        (["true", "false"], ["True", "False"], ["yes", "no"]),
        (["1.50", "2.00"], ["1.5", "2.0"], ["1.5", "2"]),
        (["404", "200"], ["404.0", "200.0"], ["404", "200"]),
    ],
    ids=lambda nodes: nodes[1][0],
)
def test_parse_values_each_node_has_its_own_spelling(nodes: tuple[list[str], ...]) -> None:
    found = field_of(*nodes)
    for texts in zip(*nodes, strict=True):
        assert same(texts, found)


@pytest.mark.parametrize(
    ("column", "hint"),
    [
        (["01/05/2026", "02/03/2026"], "month"),
        (["13/05/2026", "02/28/2026"], "month"),
        (["1,234", "5,678"], "comma"),
        (["1,234", "1234"], "comma"),
        (["3.10", "3.9", "3.1"], "declare number"),
        (["1767600000", "1767600060"], "declare datetime"),
        (["2026-01-05T10:00:00Z", "2026-01-05T10:00:00"], "UTC"),
        (["NA", "DE", "FR"], "NA is read as a value"),
        (["None", "Low", "High"], "None is read as a value"),
    ],
)
def test_infer_field_says_why_it_is_unsure(column: list[str], hint: str) -> None:
    assert hint in field_of(column, column).unsure


@pytest.mark.parametrize(("kind", "name", "texts"), FAMILIES, ids=IDS)
def test_infer_field_is_unsure_of_few(kind: str, name: str, texts: list[str]) -> None:
    unsure = field_of(texts, texts, name=name).unsure
    assert not unsure or name in ("v", "short", "card")


def test_infer_field_a_span_by_its_name() -> None:
    assert "duration" in field_of(["01:30", "02:10"], name="elapsed_time").unsure


@pytest.mark.parametrize("rare", ["0.5", "-7.25", "1000.001"])
def test_infer_field_fractions_that_a_sample_misses(rare: str) -> None:
    texts = [str(number) for number in range(30_000)]
    texts[15_001] = rare
    assert field_of(texts, texts).kind == "number"
    assert field_of(texts, [str(number) for number in range(30_000)], texts[:100]).kind == "integer"


def test_infer_field_sparse_columns_are_read_where_they_have_values() -> None:
    texts = ["" for _ in range(60_000)]
    texts[7::5000] = [f"{number}.5" for number in range(12)]
    assert field_of(texts, texts, texts).kind == "number"


# no observation

MISSING = ["", "  ", "NaN", "nan", "NULL", "null", "N/A", "n/a", "<NA>", "#N/A", "NaT", "\\N"]
MISSING_NUMBERS = [
    "NA",
    "na",
    "None",
    "none",
    "-",
    "--",
    "?",
    ".",
    "\u2014",
    "missing",
    "unknown",
    "UNKNOWN",
    "#DIV/0!",
]


@pytest.mark.parametrize(
    "column", [["1", "2"], ["1.5", "2"], ["21:05", "9:00"], ["Ada", "Grace Hopper"], ["true", "false"]]
)
def test_parse_values_no_observation(column: list[str]) -> None:
    assert candidates([None, *MISSING], field_of(column, column)) == [NOTHING] * (len(MISSING) + 1)


@pytest.mark.parametrize(
    "column",
    [["1", "2"], ["1.5", "2"], ["21:05", "9:00"], ["2026-01-05"], ["true", "false"], ["12 km", "3 km"]],
)
def test_parse_values_no_observation_where_no_word_is_a_value(column: list[str]) -> None:
    filled = [*column, *MISSING_NUMBERS]
    assert candidates(MISSING_NUMBERS, field_of(filled, filled, column)) == [NOTHING] * len(MISSING_NUMBERS)


@pytest.mark.parametrize(
    ("column", "values", "missing"),
    [
        (["NA", "DE", "FR", "CH"], ["NA"], ["-", "None"]),
        (["NA", "EMEA", "APAC", "LATAM"], ["NA"], ["?"]),
        (["Ada", "Grace Hopper", "NA"], ["unknown", "none"], ["NA", "-", "None"]),
        (["-", "+", "-"], ["-"], ["NA"]),
        (["None", "Low", "High"], ["None"], ["NA", "-"]),
        (["-", "?", "?"], [], ["-", "?", ""]),
    ],
)
def test_parse_values_what_may_be_a_value_in_a_column_of_words(
    column: list[str], values: list[str], missing: list[str]
) -> None:
    found = field_of(column, column)
    assert NOTHING not in candidates(values, found)
    assert candidates(missing, found) == [NOTHING] * len(missing)


def test_parse_values_missing_as_declared() -> None:
    found = field_of(["1.5", "-999"], ["2.5", "-999"], missing=["-999", "n.b."])
    assert candidates(["-999", " -999 ", "n.b.", ""], found) == [NOTHING] * 4
    assert NOTHING not in candidates(["-998"], found)


def test_parse_values_missing_is_a_value_if_declared() -> None:
    texts = ["", "NA", "-", None, "x"]
    found = candidates(texts, field_of(texts, missing_is_value=True))
    assert NOTHING not in found
    assert len(set(found)) == len(texts)
    numbers = field_of(["1", "2", "", "-"], missing_is_value=True)
    assert candidates(["", "-", "2"], numbers) == [(None, ""), (None, "-"), (2, None)]


# declared

DECLARED = [
    ("datetime", ["1767600000", "2026-01-05T08:00:00Z", "1767600000000", "1767600000.0"]),
    ("duration", ["01:30:00", "1:30", "5400", "90min"]),
    ("boolean", ["1", "true", "yes", "T"]),
    ("number", ["7e2", "700", "700.0"]),
    ("set", ['["a","b"]', '["b", "a", "a"]']),
    ("date", ["2026-01-05", "20260105"]),
    ("text", ["caf\u00e9", "cafe\u0301"]),
]


@pytest.mark.parametrize(("kind", "texts"), DECLARED, ids=lambda value: value if type(value) is str else "")
def test_parse_values_of_a_declared_type(kind: str, texts: list[str]) -> None:
    found = field_of(texts, texts, type=kind)
    assert (found.kind, found.source) == (kind, "declared")
    assert same(texts, found)


@pytest.mark.parametrize("kind", ["text", "identifier", "category"])
def test_parse_values_declared_words_stay_apart(kind: str) -> None:
    texts = ["1", "1.0", "01", "1e0"]
    assert all_differ(texts, field_of(texts, texts, type=kind))


def test_infer_field_keeps_tolerances() -> None:
    times = field_of(["21:05", "9:00"], tolerance="10m", error=0.1)
    assert (times.tolerance, times.error) == (600, 0.1)
    assert field_of(["2026-01-05"], tolerance="2d").tolerance == 2


@pytest.mark.parametrize(
    ("fold", "texts"),
    [
        (["case"], ["Ada", "ADA", "ada"]),
        (["case"], ["Stra\u00dfe", "STRASSE", "strasse", "STRA\u1e9eE"]),
        (
            ["case"],
            ["\u03a3\u03af\u03c3\u03c5\u03c6\u03bf\u03c2", "\u03a3\u038a\u03a3\u03a5\u03a6\u039f\u03a3"],
        ),
        (["space"], ["Ada L", " Ada\u00a0 L ", "Ada\tL", "\ufeffAda L\u200b"]),
        (["accents"], ["caf\u00e9", "cafe", "cafe\u0301"]),
        (["case", "space", "accents"], [" \u00c9t\u00e9", "ete", "E\u0301TE "]),
    ],
)
def test_parse_values_fold(fold: list[str], texts: list[str]) -> None:
    assert same(texts, field_of(texts, texts, fold=fold, type="text"))
    assert not same(texts, field_of(texts, texts, type="text"))


def test_parse_values_fold_of_a_set() -> None:
    texts = ['["A","b"]', '["B","a","A"]']
    assert same(texts, field_of(texts, type="set", fold=["case"]))


# JSON


def test_parse_values_json_strings_and_numbers_are_different_words() -> None:
    mixed = ["7", '"7"', "8"]
    assert all_differ(mixed, field_of(["7", "8"], ["7", "8"], mixed, is_json=True), is_json=True)
    assert all_differ(mixed, field_of(['"7"', '"8"'], ['"7"'], mixed, is_json=True), is_json=True)
    assert same(["7", '"7"'], field_of(mixed, type="integer", is_json=True), is_json=True)
    assert "declare the type" in field_of(["7", '"7"'], is_json=True).unsure


def test_parse_values_json_true_and_its_text_differ() -> None:
    texts = ["true", '"true"', "false"]
    assert all_differ(texts, field_of(["true", "false"], ["true"], is_json=True), is_json=True)
    assert all_differ(texts, field_of(['"true"', '"false"'], ['"true"'], is_json=True), is_json=True)
    assert same(texts[:2], field_of(texts, type="boolean", is_json=True), is_json=True)


def test_parse_values_json_no_observation() -> None:
    numbers = field_of(["7", "8.5", "null"], is_json=True)
    assert candidates(["null", '""', '" "', '"NA"', None], numbers, is_json=True) == [NOTHING] * 5
    assert NOTHING not in candidates(["[]", "{}", "0", "false"], numbers, is_json=True)


def test_parse_values_json_contents_are_read() -> None:
    texts = ['"21:20"', '"9:05 PM"', '"09\\u003a05"']
    found = field_of(texts, texts, is_json=True)
    assert candidates(texts, found, is_json=True) == [(76800, None), (75900, None), (32700, None)]


def test_parse_values_json_half_a_letter_is_a_word() -> None:
    texts = ['"\\ud800"', '"\\\\ud800"', '"\\udc00"', '"x"']
    assert all_differ(texts, field_of(texts, texts, is_json=True), is_json=True)


@pytest.mark.parametrize("depth", [99, 5000, 100_000])
def test_parse_values_deep_lists_are_words(depth: int) -> None:
    deep = "[" * depth + "]" * depth
    found = field_of([deep], type="list")
    assert NOTHING not in candidates([deep, deep[1:], "[" * depth], found)


# any column

hostile = st.one_of(
    st.text(max_size=8),
    st.sampled_from([text for _, _, texts in FAMILIES for text in texts]),
    st.sampled_from([*MISSING, *MISSING_NUMBERS, *(text for _, _, texts in SAME for text in texts)]),
    st.from_regex(r"\A[+-]?[0-9]{0,4}([.,' ][0-9]{0,3}){0,3}(e[+-]?[0-9]{0,3})?( ?(km|%|s|PM))?\Z"),
    st.from_regex(
        r"\A[0-9]{1,4}[-/.][0-9]{1,2}[-/.][0-9]{1,4}([T ][0-9]{1,2}:[0-9]{1,2}(Z|[+-][0-9]{2}:?)?)?\Z"
    ),
).filter(lambda text: not any("\ud800" <= letter <= "\udfff" for letter in text))
columns = st.lists(st.lists(st.none() | hostile, max_size=8), min_size=1, max_size=5)
rules = st.builds(
    FieldRule,
    type=st.none() | st.sampled_from(["text", "identifier", *KINDS, "set"]),
    missing=st.lists(hostile, max_size=2),
    missing_is_value=st.booleans(),
    fold=st.lists(st.sampled_from(["case", "space", "accents"]), max_size=3, unique=True),
)


@settings(deadline=None)
@given(columns, rules, st.booleans(), st.randoms(use_true_random=False))
@example([["1,234", "1234"], ["0,5"]], FieldRule(), False, None)
@example([['"'], ['"a', "\\"]], FieldRule(), True, None)
def test_infer_field_the_order_of_versions_and_records_does_not_matter(
    nodes: list[list[str | None]], rule: FieldRule, is_json: bool, random: object
) -> None:
    def infer(orders: list[list[str | None]]) -> FieldType:
        votes = [1] * len(orders)
        return infer_field("x", [as_series(texts) for texts in orders], votes, rule, is_json=is_json)

    found = infer(nodes)
    assert infer(nodes[::-1]) == found
    assert infer([texts[::-1] for texts in nodes]) == found
    texts = [text for node in nodes for text in node]
    every = candidates(texts, found, is_json=is_json)
    assert candidates(texts[::-1], found, is_json=is_json) == every[::-1]
    for text, (number, word) in zip(texts, every, strict=True):
        assert number is None or word is None
        assert number is None or number - number == 0  # finite
        if not rule.missing_is_value:
            assert text is not None or (number, word) == NOTHING
        else:
            assert (number, word) != NOTHING
    seen = is_observed(as_series(texts), found, is_json=is_json).to_list()
    assert seen == [value != NOTHING for value in every]
    for text, value in zip(texts, every, strict=True):  # a text's value does not depend on the others
        assert candidates([text], found, is_json=is_json) == [value]


@settings(deadline=None)
@given(st.lists(st.lists(hostile, min_size=1, max_size=6), min_size=1, max_size=3))
def test_infer_field_votes_count_as_nodes_with_the_same_version(nodes: list[list[str]]) -> None:
    series = [as_series(texts) for texts in nodes]
    weighted = infer_field("x", series, [2] * len(series), FieldRule(), is_json=False)
    assert infer_field("x", series * 2, [1] * (2 * len(series)), FieldRule(), is_json=False) == weighted


@settings(deadline=None)
@given(columns, rules, st.booleans())
def test_infer_field_small_and_large_columns_are_read_alike(
    nodes: list[list[str | None]], rule: FieldRule, is_json: bool
) -> None:
    series, votes = [as_series(texts) for texts in nodes], [1] * len(nodes)
    small = infer_field("x", series, votes, rule, is_json=is_json)
    seen = [is_observed(column, small, is_json=is_json).to_list() for column in series]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(observed, "_FEW", -1)
        patch.setattr(observed, "_FEW_CELLS", -1)
        patch.setattr(values, "_FEW_ROWS", -1)
        assert infer_field("x", series, votes, rule, is_json=is_json) == small
        assert [is_observed(column, small, is_json=is_json).to_list() for column in series] == seen


@settings(deadline=None)
@given(st.lists(hostile, max_size=20))
def test_sieves_let_all_texts_through_that_are_read(texts: list[str]) -> None:
    sample = Observed([text.strip(WHITE_SPACE) for text in texts], [])
    series = as_series(sample.texts)
    orders: list[DateOrder] = ["", "dmy", "mdy"]
    read = [
        (TIME_SIEVE, parse_times(series)),
        (DURATION_SIEVE, parse_durations(series)),
        *((DATE_SIEVE, parse(series, order)) for parse in (parse_dates, parse_datetimes) for order in orders),
    ]
    for sieve, numbers in read:
        through = sample.matching(sieve)
        assert not any(
            is_read > passed for is_read, passed in zip(numbers.is_not_null(), through, strict=True)
        )
    for style in (NumberStyle(), NumberStyle(",", "."), NumberStyle(".", ", ", "km")):
        assert are_decimals(sample, style) == parse_decimals(series, style).is_not_null().to_list()
        assert are_integers(sample, style) == parse_integers(series, style).is_not_null().to_list()


def test_white_space_is_what_polars_strips() -> None:
    letters = [chr(code) for code in range(0x3100)]
    stripped = as_series(letters).str.strip_chars().to_list()
    assert "".join(letter for letter, rest in zip(letters, stripped, strict=True) if not rest) == WHITE_SPACE
