"""Validates JSON and JSON Lines by a JSON Schema. Only for the child process: schemas come from strangers.

A `pattern` may take for ever, and a deep schema may exhaust the stack; the process is limited and killed. No
reference leads out of the schema: nothing is retrieved.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import jsonschema
from jsonschema.exceptions import SchemaError, ValidationError
from jsonschema.validators import validator_for
from referencing.exceptions import Unresolvable
from referencing.jsonschema import EMPTY_REGISTRY

MAX_SHOWN = 3  # violations that a result shows
MAX_VIOLATION = 200  # characters of each


class SchemaUnusable(Exception):
    """A schema is not valid, or refers to something outside of it; the message is the reason."""


def violations(schema: dict[str, Any], documents: Iterable[tuple[str, Any]]) -> list[str]:
    """Return the first violations, in the order of the documents; each names its place.

    `documents`: each with the place to name. Raises SchemaUnusable.
    """
    kind = validator_for(schema, default=jsonschema.Draft202012Validator)
    try:
        kind.check_schema(schema)
        validator = kind(schema, registry=EMPTY_REGISTRY)
        found = (
            _described(place, error)
            for place, document in documents
            for error in validator.iter_errors(document)
        )
        return list(islice(found, MAX_SHOWN))
    except SchemaError as error:
        raise SchemaUnusable(f"the schema is not valid at {_pointer(error)}: {error.message}") from error
    except Unresolvable as error:
        raise SchemaUnusable(f"the schema refers to {error.ref!r}, which is not in it") from error
    except RecursionError as error:
        raise SchemaUnusable("the schema or the file is nested too deeply") from error


def _described(place: str, error: ValidationError) -> str:
    text = f"{place}{_pointer(error) or '(top)'}: {error.message}"
    return text if len(text) <= MAX_VIOLATION else f"{text[: MAX_VIOLATION - 1]}…"


def _pointer(error: ValidationError | SchemaError) -> str:
    return "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in error.absolute_path)


def read_documents(text: str, *, lines: bool) -> Iterator[tuple[str, Any]]:
    """Yield the documents in a file with their places. Raises ValueError for what is not JSON."""
    if not lines:
        yield "", json.loads(text, parse_constant=_refuse_constant)
        return
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            yield f"line {number} ", json.loads(line, parse_constant=_refuse_constant)
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from error


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number in JSON")
