"""Hypothesis strategies for JSON as real tools write it: numbers, escapes and blanks in all spellings."""

from __future__ import annotations

from hypothesis import strategies as st

NUMBERS = (
    "3.14159265358979323846264338327950288",
    "1e500",
    "-1E-500",
    "1.10",
    "0.1e+1",
    "-0",
    "-0.0",
    "1E5",
    "9007199254740993",
    "12345678901234567890123",
)
STRINGS = (
    '"plain"',
    '"ä€"',
    '"\\u00e4"',
    '"a,b]"',
    '"q\\"q"',
    '""',
    '"\\ud83d\\ude00"',
    '"a\\/b"',
    '"\\t\\\\"',
)
WORDS = ("null", "true", "false", "[]", "{ }")
BLANKS = ("", " ", "  ", "\t")


def json_texts(blanks: tuple[str, ...] = BLANKS) -> st.SearchStrategy[str]:
    """Return a strategy for JSON texts, with `blanks` between the tokens."""
    blank = st.sampled_from(blanks)
    leaf = st.sampled_from((*NUMBERS, *STRINGS, *WORDS))

    def around(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        padded = st.tuples(blank, inner, blank).map("".join)
        names = st.lists(st.sampled_from(STRINGS), max_size=4, unique_by=_name)
        lists = st.lists(padded, max_size=4).map(lambda parts: "[" + ",".join(parts) + "]")
        objects = names.flatmap(
            lambda names: st.lists(padded, min_size=len(names), max_size=len(names)).map(
                lambda values: "{" + ",".join(map(":".join, zip(names, values, strict=True))) + "}"
            )
        )
        return lists | objects

    return st.recursive(leaf, around, max_leaves=8)


def _name(text: str) -> str:
    return text.replace("\\u00e4", "ä")
