"""Schemas: what the fields of record files are, as it is declared or inferred from the nodes' values."""

from __future__ import annotations

from glob import escape
from typing import Literal

from pydantic import Field

from .common import Record
from .round import FieldKind, FieldRule, VoteDefinition

MAX_SCHEMA_FILES = 100  # described at once
_MAX_MISSING = 100  # of a FieldRule


class FieldSchema(Record):
    """What a field is, and how its values are read and compared.

    `declared`: what the definition says about it; the rest is inferred from the values of all nodes.
    `unsure`: why that may be wrong. `decimal`, `thousands`: marks in its numbers (a blank: any space or
    apostrophe); `unit`: of its numbers. `order` of day and month in its dates; `zoned`: its times have zones.
    `missing`: texts in it that are no observation, beside the empty text and null. `nodes`: how many have
    values. `measured`: each node measures its own number; `tolerance` (in the unit of its values: seconds of
    times, days of dates) and `error` (a fraction of the larger value): how far apart values may be and agree;
    `noise`: where these come from.
    """

    name: str
    kind: FieldKind
    source: Literal["declared", "inferred"]
    unsure: str = ""
    decimal: str = "."
    thousands: str = ""
    unit: str = ""
    order: Literal["", "dmy", "mdy"] = ""
    zoned: bool = False
    missing: list[str] = Field(default_factory=list)
    nodes: int = 0
    measured: bool = False
    tolerance: float = 0
    error: float = 0
    noise: Literal["exact", "assumed", "declared", "estimated"] = "exact"
    declared: FieldRule = Field(default_factory=FieldRule)


class FileSchema(Record):
    """How the records of a file are matched, by `key` (none: by position), and what its fields are.

    The fields of a `document`, which is no list of records, are JSON pointers, with `*` for the entries of
    lists, or their last steps; `lists`: JSON pointer → the members that identify the entries. `whole`: why
    the file is voted as a whole instead. `abstained`: by node, why its version is not read.
    """

    path: str
    key: list[str] = Field(default_factory=list)
    key_source: str = ""
    unsure: str = ""
    document: bool = False
    lists: dict[str, list[str]] = Field(default_factory=dict)
    whole: str = ""
    fields: list[FieldSchema] = Field(default_factory=list)
    abstained: dict[str, str] = Field(default_factory=dict)

    def has_inside(self, field: FieldSchema) -> bool:
        """True if a field is an object that is voted by what is inside; with a type it would be one value."""
        name = field.name.replace("~", "~0").replace("/", "~1")
        around = f"{field.name if field.name.startswith('/') else '/' + name}/"
        return field.kind == "object" and any(other.name.startswith(around) for other in self.fields)


class Schema(Record):
    """What the record files of some commits are, by a definition. `more`: record files that are left out.

    `unmatched`: the paths in `files` of the definition that are the first to match no file of the commits.
    """

    commits: dict[str, str]
    definition: VoteDefinition
    files: list[FileSchema]
    more: int = 0
    unmatched: list[str] = Field(default_factory=list)

    def pinned(self) -> VoteDefinition:
        """Return the definition with what was inferred declared, so that later values change nothing."""
        rules = []
        for file in self.files:
            if not file.whole:
                rule = self.definition.rule_for(file.path)
                fields = rule.fields | {
                    field.name: _pinned_rule(field) for field in file.fields if not file.has_inside(field)
                }
                for pointer, key in file.lists.items():
                    known = fields.get(pointer, FieldRule())
                    fields[pointer] = known.model_copy(update={"key": key})
                names = {"path": escape(file.path), "key": file.key, "fields": fields}
                rules.append(rule.model_copy(update=names if file.key else names | {"key": rule.key}))
        paths = {rule.path for rule in rules}
        others = (rule for rule in self.definition.files if rule.path not in paths)
        return self.definition.model_copy(update={"files": [*rules, *others]})


def _pinned_rule(field: FieldSchema) -> FieldRule:
    """Return what a definition says about a field, with its kind and all texts that are no observation."""
    missing = [
        *field.declared.missing,
        *(text for text in field.missing if text not in field.declared.missing),
    ]
    known = {"type": field.kind, "missing": missing[:_MAX_MISSING]}
    return field.declared.model_copy(update=known if missing else {"type": field.kind})
