"""The nodes' versions of a record file, read; equal ones once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from mao_shared.models.round import FileRule

from .elect import fixed
from .records import Container, Format, NotRecords, Version, containers, load, load_document, parse_json

Shape = Literal["records", "document"]
"""A JSON file holds a list of records, or a document that is voted leaf by leaf."""


class TooFewReadable(Exception):
    """Not more than half of the versions can be read as records; the message says why, for a person."""


@dataclass(frozen=True, slots=True)
class Reading:
    """`kinds`: of a document, what is a list and what an object."""

    content: bytes
    version: Version
    shape: Shape = "records"
    kinds: dict[str, Container] = field(default_factory=dict)


def read(
    content: bytes, how: Format, rule: FileRule, nodes: tuple[str, ...] = (), weight: int = 0
) -> Reading:
    """Raises NotRecords."""
    document = _document(content) if how is Format.JSON else []
    if isinstance(document, list) and all(isinstance(each, dict) for each in document):
        table = load(content, how)
        if not how.tabular and not table.width and b"".join(content.split()) not in (b"", b"[]"):
            raise NotRecords("its records have no fields")
        return Reading(content, Version(table, nodes, weight))
    table = load_document(document, rule.ignore, rule.volatile)
    return Reading(content, Version(table, nodes, weight), "document", dict(containers(document)))


def _document(content: bytes) -> Any:
    try:
        text = content.decode("utf-8-sig")
        return parse_json(text, names_once=True) if text.strip() else []
    except RecursionError:
        raise NotRecords("its JSON is nested too deeply") from None
    except ValueError as error:
        raise NotRecords(f"it is not JSON: {error}") from None


def read_all(
    versions: Mapping[str, bytes], how: Format, rule: FileRule, weights: Mapping[str, float]
) -> tuple[list[Reading], dict[str, str]]:
    """The readings, those of most nodes first, and which nodes' versions are none, and why."""
    nodes: dict[bytes, list[str]] = defaultdict(list)
    for node in sorted(versions):
        nodes[versions[node]].append(node)
    readings: list[Reading] = []
    abstained: dict[str, str] = {}
    for content, holders in nodes.items():
        weight = sum(fixed(weights.get(node, 1.0)) for node in holders)
        try:
            readings.append(read(content, how, rule, tuple(holders), weight))
        except NotRecords as why:
            abstained |= dict.fromkeys(holders, str(why))
    return sorted(readings, key=_rank), abstained


def _rank(reading: Reading) -> tuple[int, int, bytes]:
    version = reading.version
    return -version.votes, -version.weight, reading.content
