"""What people compare and take away: differences between commits, and all files below a path."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pygit2
from pygit2.enums import FileMode

from . import lfs
from .checkout import unsafe
from .clone import Clone
from .content import Opened, open_content
from .diff import Difference, differing
from .links import leading_out, links_of
from .objects import top_tree
from .paths import path_fault


@dataclass(frozen=True, slots=True)
class Delta:
    """A file that differs. `change`: added, removed, changed; `old`, `new`: ids, None where there is none."""

    path: str
    change: str
    old: str | None
    new: str | None


@dataclass(frozen=True, slots=True)
class Member:
    """A file or link below a path; `size` in bytes of what `open_id` gives.

    `link`: whether it is to be a link where it is unpacked. One that would lead out of the tree is a file
    with its target as text, as it is where tools read a dataset.
    """

    path: str
    id: str
    size: int
    executable: bool
    link: bool


def list_deltas(clone: Clone, before: str, after: str, path: str = "") -> list[Delta]:
    """Files (at or below `path`) that differ between two commits, by path."""
    old, new = (top_tree(clone, commit) for commit in (before, after))
    inside = path.strip("/")
    deltas = (_delta(each) for each in differing(old, new))
    return sorted((each for each in deltas if _is_below(each.path, inside)), key=lambda each: each.path)


def _delta(found: Difference) -> Delta:
    change = "added" if found.old is None else "removed" if found.new is None else "changed"
    old, new = (None if entry is None else str(entry.id) for entry in (found.old, found.new))
    return Delta(found.path, change, old, new)


def _is_below(path: str, inside: str) -> bool:
    return not inside or path == inside or path.startswith(inside + "/")


def kind_at(clone: Clone, commit: str, path: str) -> str | None:
    """`file`, `folder` or None for what a commit has at a path; links are files, submodules nothing."""
    found: pygit2.Object = top_tree(clone, commit)
    for name in filter(None, path.split("/")):
        if not isinstance(found, pygit2.Tree) or name not in found:
            return None
        found = found[name]
    if isinstance(found, pygit2.Tree):
        return "folder"
    return "file" if isinstance(found, pygit2.Blob) else None


def open_id(clone: Clone, commit: str, content: str) -> Opened:
    """The content that a commit has under an id, to be read in pieces; raises lfs.ContentMissing."""
    oid = pygit2.Oid(hex=content)
    return open_content(clone, oid, with_lfs=lfs.uses_lfs(top_tree(clone, commit)))


def list_members(clone: Clone, commit: str, path: str) -> list[Member]:
    """All files and links below a folder.

    Raises InvalidInput (`dataset-unsafe`) for a name that no archive can hold or that leads out of it,
    and lfs.ContentMissing when the content of a file must be fetched first.
    """
    top = top_tree(clone, commit)
    with_lfs = lfs.uses_lfs(top)
    inside = "".join(f"{part}/" for part in path.split("/") if part)
    start = top[inside.rstrip("/")] if inside else top
    outward = leading_out(links_of(clone, str(top.id)))
    found = _members(clone, start.peel(pygit2.Tree), inside, with_lfs)
    return [replace(each, link=False) if each.path in outward else each for each in found]


def _members(clone: Clone, tree: pygit2.Tree, inside: str, with_lfs: bool) -> Iterator[Member]:
    seen: set[str] = set()
    for entry in tree:
        name = entry.name or ""
        if fault := path_fault(f"{inside}{name}"):
            raise unsafe(f"{inside}{name}", f"cannot be handed on: {fault}")
        if name in seen:  # a second one of a name would be written through the first
            raise unsafe(f"{inside}{name}", "is there twice")
        seen.add(name)
        if isinstance(entry, pygit2.Tree):
            yield from _members(clone, entry, f"{inside}{name}/", with_lfs)
        elif isinstance(entry, pygit2.Blob):
            yield _member(clone, entry, f"{inside}{name}", with_lfs)


def _member(clone: Clone, blob: pygit2.Blob, path: str, with_lfs: bool) -> Member:
    mode = blob.filemode
    size = int(clone.git.odb.read_header(blob.id)[1])
    if lfs.may_be_pointer(size):
        size = open_content(clone, blob.id, with_lfs=with_lfs).size
    return Member(path, str(blob.id), size, mode == FileMode.BLOB_EXECUTABLE, mode == FileMode.LINK)


def diff_lines(before: bytes, after: bytes, path: str) -> Iterator[str] | None:
    """Lines of a unified diff, without a heading; None when git takes a side for binary."""
    patch = pygit2.Patch.create_from(before, after, path, path)
    if patch is None or patch.delta.is_binary:
        return None
    return _lines(patch)


def _lines(patch: pygit2.Patch) -> Iterator[str]:
    for hunk in patch.hunks:
        yield hunk.header.rstrip("\n")
        for line in hunk.lines:
            yield line.origin + line.raw_content.decode(errors="replace").rstrip("\n")
