"""Differences between two commits of a dataset, by file, row and field. Blocking."""

from __future__ import annotations

from collections.abc import Sequence
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
from mao_vote import records
from mao_vote.records import NotRecords, RecordFormat

MAX_RECORDS_SIZE = {
    RecordFormat.CSV: 32 << 20,
    RecordFormat.TSV: 32 << 20,
    RecordFormat.JSON: 8 << 20,
    RecordFormat.JSON_LINES: 8 << 20,
}
"""Bytes of a side that are read as records; JSON takes many times its size in memory."""
MAX_LINES_SIZE = 8 << 20  # bytes of a side that are compared as lines
MAX_TEXT = 2000  # characters of a value or line that are shown


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

    Raises NotFound for a path that neither side has, InvalidInput for `rows` of a file without records.
    """
    clone = Clone.open(context.data.clone(name))
    old = clone.resolve(before or GROUND_TRUTH)
    new = clone.resolve(after or context.node)
    kinds = {clone.kind(commit, path) for commit in (old, new)}
    if kinds == {None}:
        raise NotFound(
            f"There is no {path!r} in commit {old[:10]} nor in {new[:10]}.",
            code="path-not-found",
            next=f"List what differs: maoctl dataset diff {name} {old[:10]} {new[:10]}",
        )
    deltas = clone.file_changes(old, new, path)
    page = [delta for delta in deltas if cursor is None or delta.path > cursor]
    answer = DatasetDiff(before=old, after=new, files=[_file(delta) for delta in page[:limit]])
    answer.cursor = page[limit - 1].path if len(page) > limit else None
    if "folder" not in kinds and deltas:
        _compare_file(context, clone, answer, deltas[0], manner, key, limit)
    return answer


def _file(delta: FileChange) -> FileDifference:
    return FileDifference.model_validate(
        {
            "path": mao_git.paths.printable(delta.path),
            "change": delta.change,
            "before": delta.old,
            "after": delta.new,
        }
    )


def _compare_file(
    context: Context,
    clone: Clone,
    answer: DatasetDiff,
    delta: FileChange,
    manner: DiffFormat,
    key: Sequence[str],
    limit: int,
) -> None:
    how = records.record_format(delta.path)
    max_size = MAX_RECORDS_SIZE[how] if how and manner != "lines" else MAX_LINES_SIZE
    old = _read_side(context, clone, answer.before, delta.old, max_size)
    new = _read_side(context, clone, answer.after, delta.new, max_size)
    if old is None or new is None:
        answer.note = f"It is larger than {max_size >> 20} MiB: download both sides and compare them locally."
        return
    if manner != "lines":
        try:
            answer.rows = _rows((old, new), how, key, limit)
            rows = answer.rows
            if not (rows.added or rows.removed or rows.changed or rows.columns_added or rows.columns_removed):
                answer.note = "The records are equal but formatted differently; compare the file as lines."
            return
        except NotRecords as reason:
            if manner == "rows" or key:
                raise InvalidInput(
                    f"{delta.path!r} cannot be compared as records: {reason}.",
                    code="not-records",
                    next="Name other key columns, or leave 'rows' and 'key' out to compare lines.",
                ) from reason
            answer.note = f"Not compared as records: {reason}." if how else None
    if max(len(old), len(new)) > MAX_LINES_SIZE:
        answer.note = f"{answer.note or ''} It is larger than {MAX_LINES_SIZE >> 20} MiB.".strip()
        return
    lines = mao_git.diff_lines(old, new, delta.path)
    if lines is None:
        answer.note = "Binary files; only their ids are compared."
        return
    shown = [_cut(line) or "" for line in islice(lines, limit + 1)]
    answer.lines = LinesDifference(lines=shown[:limit], truncated=len(shown) > limit)


def _read_side(
    context: Context, clone: Clone, commit: str, content: str | None, max_size: int
) -> bytes | None:
    """Return a side's bytes, empty if there is no file; None if it is larger than `max_size` bytes."""
    if content is None:
        return b""
    opened = clones.with_lfs_content(context, clone, commit, lambda: clone.open_blob(commit, content))
    return b"".join(opened.pieces) if opened.size <= max_size else None


def _rows(
    sides: tuple[bytes, bytes], how: records.RecordFormat | None, key: Sequence[str], limit: int
) -> RowsDifference:
    if how is None:
        raise NotRecords("its name does not end in .csv .tsv .tab .json .jsonl .ndjson")
    before, after = (records.load(side, how) for side in sides)
    found = records.compare(before, after, records.choose_key([before, after], key), limit)
    return RowsDifference(
        key=list(found.key.columns),
        key_source=found.key.source,
        columns_added=found.columns_added,
        columns_removed=found.columns_removed,
        added=found.added,
        removed=found.removed,
        changed=found.changed,
        same=found.same,
        rows=[_row(row) for row in found.rows],
        truncated=len(found.rows) < found.added + found.removed + found.changed,
    )


def _row(change: records.RowChange) -> RowDifference:
    fields = {
        name: FieldDifference(before=_cut(old), after=_cut(new)) for name, (old, new) in change.fields.items()
    }
    return RowDifference(
        change=change.change, key={n: _cut(v) or "" for n, v in change.key.items()}, fields=fields
    )


def _cut(text: str | None) -> str | None:
    return text if text is None or len(text) <= MAX_TEXT else text[:MAX_TEXT] + "…"
