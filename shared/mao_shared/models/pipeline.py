"""Titles: what the original let people call a pipeline or a step, and the name that is derived from it.

A title is any line of text. The name is what branches, labels and paths are made of, and is a function of
the title alone: whoever knows the title knows the name, on every node and without asking.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationInfo

from .common import STORED, is_name

LONGEST_TITLE = 500
_LONGEST_NAME = 63
_HASH = 8  # hexadecimal digits of the title's SHA-256 where letters alone would not tell titles apart
_LETTERS = str.maketrans(
    {"ß": "ss", "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L"}
)


def normal_title(text: str) -> str:
    """The title as it is kept and compared: composed, without blanks around it.

    Raises ValueError for what is no single line of text.
    """
    title = unicodedata.normalize("NFC", text).strip()
    if not title:
        raise ValueError("the title is empty")
    if len(title) > LONGEST_TITLE:
        raise ValueError(f"the title has {len(title)} characters; {LONGEST_TITLE} are taken")
    if strange := next((each for each in title if unicodedata.category(each) in _NOT_ON_A_LINE), None):
        raise ValueError(f"{strange!a} is in the title; a title is one line of text")
    return title


_NOT_ON_A_LINE = {"Cc", "Cs", "Zl", "Zp"}  # control characters, lone surrogates, line and paragraph ends


def name_of(title: str) -> str:
    """The name of what bears this title; a title that can be a name is its own.

    Accents go, all else that a name cannot hold becomes '-'. A title that is too long, or of which nothing is
    left, gets digits of its hash, so that others of the kind have another name.
    """
    if is_name(title):
        return title
    plain = unicodedata.normalize("NFKD", title.translate(_LETTERS))
    letters = "".join(each for each in plain if not unicodedata.combining(each))
    name = re.sub(r"[^A-Za-z0-9._]+", "-", letters)
    name = re.sub(r"\.{2,}", ".", name).strip("._-")
    name = re.sub(r"\.lock$", "-lock", name)
    digits = hashlib.sha256(title.encode()).hexdigest()[:_HASH]
    if not name:
        return f"title-{digits}"
    if len(name) > _LONGEST_NAME:
        return f"{name[: _LONGEST_NAME - _HASH - 1].rstrip('._-')}-{digits}"
    return name


def with_title(value: dict[str, Any]) -> dict[str, Any]:
    """Fields in which a `name` that is none has become the `title`, and a title alone its name: pure."""
    name, title = value.get("name"), value.get("title")
    if isinstance(name, str) and title is None and name and not is_name(name):
        title = name = normal_title(name)
    elif isinstance(title, str) and name in (None, ""):
        title = name = normal_title(title)
    if not isinstance(name, str) or title is None or name != title:
        return value
    if is_name(title):
        return {key: each for key, each in value.items() if key != "title"} | {"name": title}
    return value | {"name": name_of(title), "title": title}


def check_title(name: str, title: str | None) -> None:
    """Raises ValueError for a title that goes with another name."""
    if title is not None and name_of(title) != name:
        raise ValueError(
            f"the name of what bears the title {title!r} is {name_of(title)!r}: leave 'name' out, or 'title'"
        )


def _check_form(title: str, info: ValidationInfo) -> str:
    return title if info.context == STORED else normal_title(title)


def name_of_either(text: str) -> str:
    """The name that a person means by a name or a title; raises ValueError for what can be neither."""
    return text if is_name(text) else name_of(normal_title(text))


Title = Annotated[
    str,
    Field(max_length=LONGEST_TITLE, examples=["ArtifactHUB Collector packages only"]),
    AfterValidator(_check_form),
]
# Left out where there is none: such records are, byte for byte, what earlier versions wrote and hashed.
OptionalTitle = Annotated[Title | None, Field(exclude_if=lambda title: title is None)]
NameOrTitle = Annotated[
    str,
    Field(max_length=LONGEST_TITLE, examples=["system-performance"]),
    AfterValidator(lambda text: text if is_name(text) else normal_title(text)),
]
"""What a caller may write for a pipeline; `name_of_either` gives the name."""
