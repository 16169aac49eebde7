"""Folds texts that count as the same: Unicode forms, and as declared case, space and accents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mao_shared.models.round import Fold

if TYPE_CHECKING:
    from polars import Expr, Series

_SPACES = r"[\s\u{200b}\u{feff}]+"  # with the characters that have no width


def fold_texts(texts: Series, fold: Sequence[Fold] = ()) -> Series:
    """Return texts of which equal ones count as the same; always in Unicode's normal form NFC.

    `case`: upper and lower case are the same, also ß and ss. `accents`: letters are the same
    with and without marks. `space`: a run of white space is one space, and none at the ends, nor inside
    the quotes of a JSON text.
    """
    import polars

    text = polars.col("text")
    only_ascii = is_ascii(texts)
    if only_ascii and not fold:
        return texts
    if not only_ascii:
        text = text.str.normalize("NFC")
    if "accents" in fold and not only_ascii:
        text = text.str.normalize("NFD").str.replace_all(r"\p{Mn}+", "").str.normalize("NFC")
    if "case" in fold:
        text = text.str.to_lowercase() if only_ascii else _without_case(text)
    if "space" in fold:
        text = (
            text.str.replace_all(_SPACES, " ")
            .str.replace('^ ?("?) ?', "${1}")
            .str.replace(' ?("?) ?$', "${1}")
        )
    return polars.DataFrame({"text": texts}).select(text)["text"].rename(texts.name)


def _without_case(text: Expr) -> Expr:
    """Fold case by way of capitals, which ß and ss or two forms of sigma have in common.

    Not by Python's casefold: it knows other letters in each version of Python, and nodes must agree.
    """
    return text.str.to_lowercase().str.to_uppercase().str.to_lowercase().str.normalize("NFC")


def is_ascii(texts: Series) -> bool:
    """True if texts can have no other Unicode form."""
    return bool((texts.str.len_bytes() == texts.str.len_chars()).all())
