"""Commits accepted values to the node's branch, each exactly once. Blocking.

The files are external/<key>/<day>.jsonl, then <day>.2.jsonl and so on, with one value per line in the order
of arrival. A key may contain slashes, which separate folders.

A committed value may be received again: the process was killed before the entry was removed from the inbox,
or the sender repeats the request with its Idempotency-Key. So all parts of its day are searched.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Any

import mao_git
from mao_datamgmt import provenance
from mao_datamgmt.context import Context
from mao_datamgmt.datasets.clones import SyncedClone, ensure_branch, ensure_clone
from mao_datamgmt.disk import require_space
from mao_git import Clone, Content
from mao_shared import __version__
from mao_shared.errors import InvalidInput, NotFound
from mao_shared.models import format_time

from .inbox import InboxEntry

FOLDER = "external"
FULL_PART_BYTES = 4 << 20  # after that, a day continues in another file
MAX_PART_BYTES = 64 << 20  # a batch and the part to which it is appended are far smaller
SCHEMA = 1
_PART_NAME = re.compile(r"(\d{4}-\d{2}-\d{2})(?:\.(\d+))?\.jsonl")


def commit_entries(
    context: Context, dataset: str, master: str | None, entries: list[InboxEntry]
) -> str | None:
    """Commit the entries that are not committed yet; return the commit, or None if all are.

    `master` is the remote from which to clone the dataset if this node has no clone; None: unknown. Raises
    NotFound if it is needed and unknown, Unavailable (`disk-full`), the errors of `ensure_clone`, and
    InvalidInput if a file is in the place of the folder.
    """
    require_space(context, 2 * (FULL_PART_BYTES + sum(len(entry.line) for entry in entries)))
    try:
        clone = Clone.open(context.data.clone(dataset))
    except NotFound:
        if master is None:
            raise
        clone = ensure_clone(context, dataset, master)
    tip = clone.tip(context.node) or ensure_branch(context, SyncedClone(clone))
    groups: defaultdict[tuple[str, str], list[InboxEntry]] = defaultdict(list)
    for entry in entries:
        groups[entry.key, entry.day].append(entry)
    read = partial(_read_part, clone, tip)
    files: Files = {}
    for (key, day), group in groups.items():
        folder = f"{FOLDER}/{key}"
        part = append_to_day(folder, day, _list_names(clone, tip, folder), group, read)
        if part is not None:
            path, data, new = part
            files[path] = data, new
    if not files:
        return None
    contents = {path: Content(partial(io.BytesIO, data), len(data)) for path, (data, _) in files.items()}
    tree = clone.write_tree(clone.tree(tip), contents)
    message = batch_message(context.node, files)
    commit = clone.commit(tree, [tip], message, context.author())
    if not clone.move_branch(context.node, commit, tip):
        raise mao_git.errors.branch_busy(context.node)
    return commit


Files = dict[str, tuple[bytes, list[InboxEntry]]]
"""For each path, its new content and the entries that are new in it."""


def _read_part(clone: Clone, tip: str, path: str) -> bytes:
    """Return the content of a part. Raises InvalidInput if it is larger than MAO would have written it."""
    stream = clone.open_file(tip, path)
    if stream.size > MAX_PART_BYTES:
        raise InvalidInput(
            f"{path} has {stream.size} bytes; MAO does not add to a file of more than {MAX_PART_BYTES}.",
            code="external-file-too-large",
            next="It was not written by MAO: give the key another dataset, or move the file away.",
        )
    return b"".join(stream.pieces)


def _list_names(clone: Clone, tip: str, folder: str) -> list[str]:
    """Return the names in a folder, none if it is absent; raise InvalidInput if a file is in its place."""
    try:
        for parent in folders_to(folder):
            entries = clone.list_files(tip, parent)
    except NotFound:
        return []
    return [entry.name for entry in entries]


def folders_to(folder: str) -> list[str]:
    """Return the parents of a folder and the folder: `a/b/c` → a, a/b, a/b/c."""
    parts = folder.split("/")
    return ["/".join(parts[: count + 1]) for count in range(len(parts))]


def append_to_day(
    folder: str, day: str, names: Iterable[str], entries: list[InboxEntry], read: Callable[[str], bytes]
) -> tuple[str, bytes, list[InboxEntry]] | None:
    """Return the path and content of the day's part, and the new entries. Pure except for `read`.

    Returns None if all entries are committed.
    """
    parts = [
        int(match[2] or 1) for name in names if (match := _PART_NAME.fullmatch(name)) and match[1] == day
    ]
    number, content = 1, b""
    new = entries
    for number in sorted(parts):  # an entry that is received again may be in any of them
        content = read(f"{folder}/{part_name(day, number)}")
        if any(entry.id.encode() in content for entry in new):  # otherwise it need not be parsed
            committed = committed_ids(content)
            new = [entry for entry in new if entry.id not in committed]
    if not new:
        return None
    if len(content) >= FULL_PART_BYTES:
        number, content = number + 1, b""
    lines = b"".join(entry.line + b"\n" for entry in new)
    terminated = content + b"\n" if content and not content.endswith(b"\n") else content
    return f"{folder}/{part_name(day, number)}", terminated + lines, new


def part_name(day: str, number: int) -> str:
    return f"{day}.jsonl" if number == 1 else f"{day}.{number}.jsonl"


def committed_ids(data: bytes) -> set[str]:
    """Return the ids of the values in a file; lines that MAO did not write are skipped."""
    found = set()
    for line in data.splitlines():
        with suppress(ValueError, KeyError, TypeError, RecursionError):
            entry_id = json.loads(line)["id"]
            if isinstance(entry_id, str):
                found.add(entry_id)
    return found


def batch_message(node: str, files: Files) -> str:
    """Return the commit message, with a record of the values, their times, and the digests of the files."""
    entries = sorted((entry for _, new in files.values() for entry in new), key=lambda entry: entry.id)
    keys = sorted({entry.key for entry in entries})
    examples = ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
    values = "1 value" if len(entries) == 1 else f"{len(entries)} values"
    record: dict[str, Any] = {
        "schema": SCHEMA,
        "kind": "external",
        "node": node,
        "keys": {key: sum(entry.key == key for entry in entries) for key in keys},
        "first": {"id": entries[0].id, "received_at": format_time(entries[0].received_at)},
        "last": {"id": entries[-1].id, "received_at": format_time(entries[-1].received_at)},
        "outputs": {
            path: {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
            for path, (data, _) in files.items()
        },
        "versions": {"mao": __version__, "libgit2": mao_git.libgit2_version()},
    }
    return provenance.embed_record(f"external: {values} of {examples} on {node}", {"mao": record})
