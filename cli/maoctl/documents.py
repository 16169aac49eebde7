"""Reading of YAML and JSON files: records for `apply` and vote definitions; errors fit on one line."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from mao_shared.errors import InvalidInput

from . import records
from .exits import CommandError, ExitCode
from .output import say

if TYPE_CHECKING:
    from mao_shared.models import VoteDefinition


class DocumentInvalid(ValueError):
    """The text is not valid YAML or JSON; the message is one line with the position."""


class _Loader(yaml.SafeLoader):
    """Loader that rejects duplicate keys, where YAML's own silently uses the last."""

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
        except (
            ValueError,
            OverflowError,
        ) as error:  # an integer with too many digits, a date that does not exist
            text = str(node.value)
            shown = text if len(text) < 40 else f"{text[:20]}… with {len(text)} characters"
            raise yaml.MarkedYAMLError(
                problem=f"invalid number or date {shown}", problem_mark=node.start_mark
            ) from error


def read_all(text: str) -> list[Any]:
    """Parse all documents in a text. Raises DocumentInvalid."""
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
    """Parse a text that has one document; None if it is empty. Raises DocumentInvalid."""
    documents = read_all(text)
    if len(documents) > 1:
        raise DocumentInvalid(f"expected one document, found {len(documents)}")
    return documents[0] if documents else None


# Records for `maoctl apply`

_RECORD_FORM = (
    "Write a record like this: {kind: tool, name: crawler, author: A. Scientist, image: 'lab/crawler:1.4'}"
)


def read_records(text: str, name: str = "The file") -> Iterator[dict[str, Any]]:
    """Yield the records in a text: documents, lists of records, or objects with `items`.

    `name`: of the file, for messages. Raises CommandError for anything else.
    """
    try:
        documents = read_all(text)
    except DocumentInvalid as error:
        raise CommandError(
            ExitCode.USAGE, f"{name} cannot be read as YAML or JSON: {error}.", "Correct the file."
        ) from error
    for document in documents:
        if isinstance(document, dict) and isinstance(document.get("items"), list):
            document = document["items"]
        for record in document if isinstance(document, list) else [document]:
            if isinstance(record, dict):
                yield record
            elif document is not None:
                raise CommandError(ExitCode.USAGE, f"{record!r:.60} is not a record.", _RECORD_FORM)


RECORD_FILES = (".yaml", ".yml", ".json")


def read_paths(paths: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Yield the records in files, in all YAML and JSON files below folders, and in stdin for `-`.

    Files and folders whose name begins with a dot are skipped. Raises CommandError.
    """
    for given in paths:
        for path in _files(given):
            try:
                text = sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                next_step = "Name a file, a folder, or - for stdin."
                raise CommandError(ExitCode.USAGE, f"{path} cannot be read: {error}", next_step) from error
            yield from read_records(text, "stdin" if path == "-" else path)


def _files(given: str) -> list[str]:
    folder = Path(given)
    if given == "-" or not folder.is_dir():
        return [given]
    found = sorted(path for path in folder.rglob("*") if path.suffix in RECORD_FILES and path.is_file())
    files = [path for path in found if "/." not in f"/{path.relative_to(folder).as_posix()}"]
    if not files:
        raise CommandError(
            ExitCode.USAGE, f"There is no YAML or JSON file below {given}.", "Name another folder or a file."
        )
    return [str(path) for path in files]


_KIND_BY_FIELD = {"steps": "pipeline", "image": "tool", "master": "dataset", "body": "dataset"}


def find_kind(record: dict[str, Any], kinds: Iterable[str]) -> str:
    """Return a record's kind, or infer it from the fields: the original's marketplace names none.

    Raises CommandError if it is not one of `kinds`.
    """
    shown = next((kind for field, kind in _KIND_BY_FIELD.items() if field in record), "")
    kind = str(record.get("kind", shown)).lower()
    if kind not in kinds:
        valid = ", ".join(kinds)
        raise CommandError(
            ExitCode.USAGE, f"Invalid kind {record.get('kind')!r}; use one of {valid}.", _RECORD_FORM
        )
    return kind


# Vote definitions

_DEFINITION_FORM = (
    "Write a definition like this: "
    "{quorum: UNTIL, quorum_percentage: 60, files: [{path: '*.csv', key: [id]}]}"
)


def read_definition(path: Path) -> VoteDefinition:
    """Read a vote definition from a file. Raises CommandError, or InvalidInput that lists invalid fields."""
    from mao_shared.models import VoteDefinition

    try:
        document = read_one(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, DocumentInvalid) as error:
        why = error.strerror if isinstance(error, OSError) else error
        detail = f"{path} cannot be read as YAML or JSON: {why}."
        raise CommandError(ExitCode.USAGE, detail, _DEFINITION_FORM) from error
    if not isinstance(document, dict):
        raise CommandError(ExitCode.USAGE, f"{path} does not contain a vote definition.", _DEFINITION_FORM)
    try:
        definition = records.build(VoteDefinition, document)
    except InvalidInput as error:
        error.next = f"Correct {path}; to start from a valid one: maoctl vote schema … --pin"
        raise
    if definition.exclusion == "FURTHEST" and definition.exclusion_threshold < 1:
        say("warning: exclusion FURTHEST has no effect with an exclusion_threshold below 1")
    return definition
