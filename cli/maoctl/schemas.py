"""The JSON Schema of the files that `maoctl apply` takes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic.json_schema import models_json_schema

from .declared import KIND, KINDS

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def describe_files(kinds: Iterable[str]) -> dict[str, Any]:
    """Return the schema of a file: a record of one of these kinds, or a list of them.

    Fields that only the node sets may be there, since `get -o yaml` prints them; other unknown ones may not.
    """
    chosen = list(kinds)
    inputs = [(KINDS[kind].model, "validation") for kind in chosen]
    by_model, defined = models_json_schema(inputs, ref_template="#/$defs/{model}")  # type: ignore[arg-type]
    definitions: dict[str, Any] = dict(defined.get("$defs", {}))
    for kind in chosen:
        reference = by_model[KINDS[kind].model, "validation"]["$ref"]
        definitions[kind] = _describe_kind(kind, definitions[reference.rpartition("/")[2]])
    record = {"anyOf": [{"$ref": f"#/$defs/{kind}"} for kind in chosen]}
    definitions["record"] = record
    listed = {"type": "array", "items": {"$ref": "#/$defs/record"}}
    wrapped = {"type": "object", "required": ["items"], "properties": {"items": listed}}
    return {
        "$schema": DIALECT,
        "title": "Records of the MAO Orchestrator for `maoctl apply`",
        "anyOf": [{"$ref": "#/$defs/record"}, listed, wrapped],
        "$defs": definitions,
    }


def _describe_kind(kind: str, model: dict[str, Any]) -> dict[str, Any]:
    """Return the model's schema with the field `kind`, and with what the node adds to the record."""
    read_only: dict[str, Any] = {name: {"readOnly": True} for name in sorted(KINDS[kind].read_only)}
    if kind == "enrolment":
        read_only["agreed"] = {"type": "array", "items": {"type": "string"}}
    return {
        **model,
        "properties": {KIND: {"const": kind}, **read_only, **model.get("properties", {})},
        "required": [KIND, *model.get("required", [])],
        "additionalProperties": False,
    }
