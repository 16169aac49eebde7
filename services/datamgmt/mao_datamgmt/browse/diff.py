"""Differences between two commits of a dataset, by file, row and field. Blocking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Literal

import mao_git
from mao_datamgmt.context import Context
from mao_datamgmt.datasets import clones
from mao_git import Clone, FileChange
from mao_shared.errors import InvalidInput, NotFound
from mao_shared.models import GROUND_TRUTH
from mao_shared.models.dataset import (
    DatasetDiff,
    FieldDifference,
    FileDifference,
    LinesDifference,
    RowDifference,
    RowsDifference,
)
from mao_vote import newest_definition, records
from mao_vote.records import NotRecords, RecordFormat

MAX_LINES_SIZE = 8 << 20  # largest size in bytes to compare as lines
MAX_TEXT = 2000  # characters; longer values and lines are truncated


DiffFormat = Literal["auto", "rows", "lines"]


def difference(
    context: Context,
    name: str,
    before: str | None,
    after: str | None,
    path: str,
    *,
    manner: DiffFormat = "auto",
    key: Sequence[str] = (),
    limit: int = 100,
    cursor: str | None = None,
) -> DatasetDiff:
    """Compare `before` (default: ground-truth) with `after` (default: this node's branch) below `path`.

    Raises NotFound if neither commit has the path, InvalidInput for `rows` of a file without records.
    """
    clone = Clone.open(context.data.clone(name))
    old = clone.resolve(before or GROUND_TRUTH)
    new = clone.resolve(after or context.node)
    kinds = {clone.kind(commit, path) for commit in (old, new)}
    if kinds == {None}:
        raise NotFound(
            f"There is no {path!r} in commit {old[:10]} nor in {new[:10]}.",
            code="path-not-found",
            next=f"List the changed files: maoctl dataset diff {name} {old[:10]} {new[:10]}",
        )
    deltas = clone.file_changes(old, new, path)
    page = [delta for delta in deltas if cursor is None or delta.path > cursor]
    shown = page[:limit]
    sizes = clone.content_sizes(new, [delta.new for delta in shown if delta.new is not None])
    diff = DatasetDiff(before=old, after=new, files=[_file(delta, sizes) for delta in shown])
    diff.cursor = page[limit - 1].path if len(page) > limit else None
    if "folder" not in kinds and deltas:
        _compare_file(context, clone, diff, deltas[0], manner, key, limit)
    return diff


def _file(delta: FileChange, sizes: Mapping[str, int]) -> FileDifference:
    return FileDifference.model_validate(
        {
            "size": sizes.get(delta.new or ""),
            "path": mao_git.paths.printable(delta.path),
            "change": delta.change,
            "before": delta.old,
            "after": delta.new,
        }
    )


def _compare_file(
    context: Context,
    clone: Clone,
    diff: DatasetDiff,
    delta: FileChange,
    manner: DiffFormat,
    key: Sequence[str],
    limit: int,
) -> None:
    record_format = records.record_format(delta.path)
    max_size = MAX_LINES_SIZE
    if record_format is not None and manner != "lines":
        max_size = records.MAX_SHOWN_BYTES[record_format]
    old = _read_side(context, clone, diff.before, delta.old, max_size)
    new = _read_side(context, clone, diff.after, delta.new, max_size)
    if old is None or new is None:
        diff.note = f"It is larger than {max_size >> 20} MiB: download both sides and compare them locally."
        return
    if manner != "lines":
        try:
            tables = _load_tables(clone, delta.path, (old, new), record_format)
            diff.rows = _compare_rows(tables, key, limit)
            rows = diff.rows
            if not (rows.added or rows.removed or rows.changed or rows.columns_added or rows.columns_removed):
                diff.note = "The records are equal but formatted differently; compare the file as lines."
            return
        except NotRecords as error:
            if manner == "rows" or key:
                raise InvalidInput(
                    f"{delta.path!r} cannot be compared as records: {error}.",
                    code="not-records",
                    next="Name other key columns, or omit 'rows' and 'key' to compare lines.",
                ) from error
            diff.note = f"Not compared as records: {error}." if record_format else None
    if max(len(old), len(new)) > MAX_LINES_SIZE:
        diff.note = f"{diff.note or ''} It is larger than {MAX_LINES_SIZE >> 20} MiB.".strip()
        return
    lines = mao_git.diff_lines(old, new, delta.path)
    if lines is None:
        diff.note = "Binary files; only their ids are compared."
        return
    excerpt = [_truncate(line) or "" for line in islice(lines, limit + 1)]
    diff.lines = LinesDifference(lines=excerpt[:limit], truncated=len(excerpt) > limit)


def _read_side(
    context: Context, clone: Clone, commit: str, content: str | None, max_size: int
) -> bytes | None:
    """Return a file's bytes, empty if it does not exist; None if it is larger than `max_size` bytes."""
    if content is None:
        return b""
    opened = clones.with_lfs_content(context, clone, commit, lambda: clone.open_blob(commit, content))
    return b"".join(opened.pieces) if opened.size <= max_size else None


def _load_tables(
    clone: Clone, path: str, sides: tuple[bytes, bytes], record_format: RecordFormat | None
) -> tuple[records.Table, records.Table]:
    """Read both sides as records, or as the values of a JSON document. Raises NotRecords."""
    if record_format is None:
        raise NotRecords("its name does not end in .csv .tsv .tab .json .jsonl .ndjson")
    if record_format is RecordFormat.JSON:
        documents = records.load_documents(*sides, newest_definition(clone).rule_for(path))
        if documents is not None:
            return documents
    before, after = (records.load(side, record_format) for side in sides)
    return before, after


def _compare_rows(
    tables: tuple[records.Table, records.Table], key: Sequence[str], limit: int
) -> RowsDifference:
    before, after = tables
    comparison = records.compare(before, after, records.choose_key([before, after], key), limit)
    return RowsDifference(
        key=list(comparison.key.columns),
        key_source=comparison.key.source,
        columns_added=comparison.columns_added,
        columns_removed=comparison.columns_removed,
        added=comparison.added,
        removed=comparison.removed,
        changed=comparison.changed,
        same=comparison.same,
        rows=[_row(row) for row in comparison.rows],
        truncated=len(comparison.rows) < comparison.added + comparison.removed + comparison.changed,
    )


def _row(change: records.RowChange) -> RowDifference:
    fields = {
        name: FieldDifference(before=_truncate(old), after=_truncate(new))
        for name, (old, new) in change.fields.items()
    }
    return RowDifference(
        change=change.change, key={n: _truncate(v) or "" for n, v in change.key.items()}, fields=fields
    )


def _truncate(text: str | None) -> str | None:
    return text if text is None or len(text) <= MAX_TEXT else text[:MAX_TEXT] + "…"
