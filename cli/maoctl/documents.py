"""YAML and JSON that a person wrote: errors in one line, no key twice; the records and definitions in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from . import records
from .exits import CommandError, ExitCode
from .output import say

if TYPE_CHECKING:
    from mao_shared.models import VoteDefinition


class DocumentInvalid(ValueError):
    """Says where and what, in one line."""


class _Loader(yaml.SafeLoader):
    """Refuses a key that is there twice, of which YAML's own loader silently takes the last."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if (key.tag, key.value) in seen:
                    raise yaml.MarkedYAMLError(
                        problem=f"the key {key.value!r} appears twice", problem_mark=key.start_mark
                    )
                seen.add((key.tag, key.value))
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, OverflowError) as error:  # more digits or another month than Python can hold
            text = str(node.value)
            shown = text if len(text) < 40 else f"{text[:20]}… with {len(text)} characters"
            raise yaml.MarkedYAMLError(
                problem=f"{shown} is not a number or date that can be read", problem_mark=node.start_mark
            ) from error


def read_all(text: str) -> list[Any]:
    """All documents. Raises DocumentInvalid."""
    try:
        return list(yaml.load_all(text, _Loader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise DocumentInvalid(where + " ".join(filter(None, (error.context, error.problem)))) from error
    except RecursionError as error:
        raise DocumentInvalid("it is nested too deeply") from error
    except yaml.YAMLError as error:
        raise DocumentInvalid(" ".join(str(error).split())) from error


def read_one(text: str) -> Any:
    """The only document; None for an empty text. Raises DocumentInvalid."""
    documents = read_all(text)
    if len(documents) > 1:
        raise DocumentInvalid(f"there are {len(documents)} documents in it; exactly one is expected")
    return documents[0] if documents else None


# Records for `maoctl apply`

_RECORD_FORM = (
    "A record looks like: {kind: tool, name: crawler, author: A. Scientist, image: 'lab/crawler:1.4'}"
)


def read_records(text: str) -> Iterator[dict[str, Any]]:
    """The records in a text: documents, lists of them, or `items`. Raises CommandError for anything else."""
    try:
        documents = read_all(text)
    except DocumentInvalid as error:
        raise CommandError(
            ExitCode.USAGE, f"The file cannot be read as YAML or JSON: {error}.", "Correct it there."
        ) from error
    for document in documents:
        if isinstance(document, dict) and isinstance(document.get("items"), list):
            document = document["items"]
        for record in document if isinstance(document, list) else [document]:
            if isinstance(record, dict):
                yield record
            elif document is not None:
                raise CommandError(ExitCode.USAGE, f"{record!r:.60} is not a record.", _RECORD_FORM)


_KIND_BY_FIELD = {"steps": "pipeline", "image": "tool", "master": "dataset", "body": "dataset"}


def find_kind(record: dict[str, Any], kinds: Iterable[str]) -> str:
    """The kind that a record names, else the one that its fields show: the original's marketplace names none.

    Raises CommandError for one that is none of `kinds`.
    """
    shown = next((kind for field, kind in _KIND_BY_FIELD.items() if field in record), "")
    kind = str(record.get("kind", shown)).lower()
    if kind not in kinds:
        valid = ", ".join(kinds)
        raise CommandError(
            ExitCode.USAGE, f"kind is {record.get('kind')!r}; it can be {valid}.", _RECORD_FORM
        )
    return kind


# Vote definitions

_DEFINITION_FORM = (
    "A definition looks like: {quorum: UNTIL, quorum_percentage: 60, files: [{path: '*.csv', key: [id]}]}"
)


def read_definition(path: Path) -> VoteDefinition:
    """A vote definition from a file; raises CommandError, or InvalidInput that lists invalid fields."""
    from mao_shared.models import VoteDefinition

    try:
        document = read_one(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, DocumentInvalid) as error:
        why = error.strerror if isinstance(error, OSError) else error
        detail = f"{path} cannot be read as YAML or JSON: {why}."
        raise CommandError(ExitCode.USAGE, detail, _DEFINITION_FORM) from error
    if not isinstance(document, dict):
        raise CommandError(ExitCode.USAGE, f"{path} holds no definition.", _DEFINITION_FORM)
    definition = records.build(VoteDefinition, document)
    if definition.exclusion == "FURTHEST" and definition.exclusion_threshold < 1:
        say("warning: exclusion FURTHEST leaves out none with an exclusion_threshold below 1")
    return definition
