"""A value that the nodes do not differ in, read from the result itself."""

from __future__ import annotations

from collections.abc import Sequence

import mao_git
from mao_git import Clone
from mao_shared.errors import InvalidInput, NotFound

from . import records
from .evidence import FileEvidence
from .records import Format, Key, NotRecords
from .round_history import Decided
from .tree_vote import RECORDS_MAX


def value_in_result(
    clone: Clone,
    decided: Decided,
    described: FileEvidence | None,
    file: str,
    meant: Sequence[Sequence[str]],
    field: str,
) -> str | None:
    """The value of a field of a record, whose key is one of those `meant`; of a whole file git's id of it.

    Raises NotFound where there is none, InvalidInput where the file is not one of records.
    """
    entry = mao_git.entry_at(clone, decided.commit, file)
    if entry is None:
        raise _nothing(decided, f"ground truth has no file {file!r}, and no node brought one")
    how = records.format_of(file)
    if how is None or not field:
        return entry.id
    key, row = _record(clone, decided, described, file, entry.id, how, meant)
    if row is None:
        columns = ", ".join(key.columns) or "its number, from 1"
        raise _nothing(decided, f"{file!r} has no record {','.join(meant[-1])!r}; the key is {columns}")
    if field not in row:
        raise _nothing(decided, f"{file!r} has no field {field!r}; it has {', '.join(list(row)[:20])}")
    return row[field]


def _record(
    clone: Clone,
    decided: Decided,
    described: FileEvidence | None,
    file: str,
    content: str,
    how: Format,
    meant: Sequence[Sequence[str]],
) -> tuple[Key, dict[str, str | None] | None]:
    """The record, by the key by which the file was voted or would have been."""
    if mao_git.size_of(clone, content) > RECORDS_MAX[how]:
        raise InvalidInput(
            f"{file!r} is too large to look into. Nodes agree on all cells that are not listed.",
            code="file-too-large",
            next=f"Read it: git show {decided.commit[:10]}:{file}",
        )
    try:
        table = records.load(mao_git.content_of(clone, content), how)
        voted_by = None if described is None else described.key
        declared = voted_by or decided.evidence.definition.rule_for(file).key
        by_position = voted_by is not None and not voted_by
        key = Key((), "position") if by_position else records.choose_key([table], declared)
    except NotRecords as reason:
        raise InvalidInput(
            f"{file!r} was voted as a whole, since it cannot be read as records: {reason}.",
            code="not-records",
            next=f"Ask for the file as a whole: --cell {file} '' ''",
        ) from None
    return key, next((row for parts in meant if (row := records.find_record(table, key, parts))), None)


def _nothing(decided: Decided, why: str) -> NotFound:
    return NotFound(
        f"In round {decided.evidence.round} there is no such cell: {why}.",
        code="cell-not-found",
        next="See what the nodes differ in: maoctl vote show … --cells",
    )
