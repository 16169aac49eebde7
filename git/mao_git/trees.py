"""Reading trees: folders, files, entries, and the content of an archive of a folder."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import pygit2
from pygit2.enums import FileMode

from mao_shared.errors import InvalidInput, NotFound

from . import lfs
from .objects import ContentStream, check_object, open_content, open_raw_blob, top_tree
from .paths import escaping_links, list_links, path_fault, unsafe_name
from .repository import Repository, tree_entry

_KINDS = {FileMode.TREE: "folder", FileMode.LINK: "link", FileMode.COMMIT: "submodule"}


class TreeEntry(NamedTuple):
    """A file, link or submodule in a tree: its id and mode in git."""

    id: str
    mode: int

    @property
    def is_file(self) -> bool:
        """True for a regular file, not for a link or submodule."""
        return self.mode in (FileMode.BLOB, FileMode.BLOB_EXECUTABLE)

    @property
    def executable(self) -> bool:
        return self.mode == FileMode.BLOB_EXECUTABLE


@dataclass(frozen=True, slots=True)
class FileEntry:
    """An entry of a folder. `kind`: file, folder, link or submodule; `size` in bytes, of files and links."""

    name: str
    kind: str
    id: str
    size: int | None
    executable: bool


@dataclass(frozen=True, slots=True)
class ArchiveEntry:
    """A file or link below a path; `size` in bytes of the content that `open_blob` returns.

    `link`: it is unpacked as a link. A link that leads out of the tree is unpacked as a file with its
    target as text, as tools see it in their data folder.
    """

    path: str
    id: str
    size: int
    executable: bool
    link: bool


# objects by id


def has_object(repo: Repository, object_id: str) -> bool:
    """True if an object is in the repository. Raises ObjectBroken, since libgit2 would read a broken one."""
    check_object(repo, object_id)
    return object_id in repo.git


def read_blob(repo: Repository, blob: str) -> bytes:
    """Return a blob's bytes as git stores them; of a large file, its pointer."""
    return b"".join(open_raw_blob(repo, pygit2.Oid(hex=blob)).pieces)


def small_blob(repo: Repository, blob: str, max_size: int = 200) -> bytes:
    """Return a blob of at most `max_size` bytes; empty for a larger one, which is not read."""
    found = repo.git[blob]
    return found.data if isinstance(found, pygit2.Blob) and found.size <= max_size else b""


def blob_size(repo: Repository, blob: str) -> int:
    """Return the size of a blob in bytes, without reading it."""
    return int(repo.git.odb.read_header(pygit2.Oid(hex=blob))[1])


def open_blob(repo: Repository, commit: str, blob: str) -> ContentStream:
    """Open the content of a blob of a commit, to be read in pieces. Raises ContentMissing."""
    return open_content(repo, pygit2.Oid(hex=blob), with_lfs=tree_uses_lfs(repo, commit))


# entries by path


def tree_of(repo: Repository, commit: str | None) -> str:
    """Return the tree of a commit; the empty tree for None."""
    if commit is None:
        return str(repo.git.TreeBuilder().write())
    return str(top_tree(repo, commit).id)


def tree_uses_lfs(repo: Repository, tree: str) -> bool:
    """True if pointers in a tree (or commit) stand for LFS content."""
    return lfs.uses_lfs(top_tree(repo, tree))


def to_tree_entry(found: pygit2.Object | None) -> TreeEntry | None:
    """Return id and mode of an object that was found in a tree; None for None."""
    return None if found is None else TreeEntry(str(found.id), int(found.filemode))


def entry_at(repo: Repository, commit: str, path: str) -> TreeEntry | None:
    """Return the file, link or submodule at a path of a commit; None for a folder or nothing."""
    found = tree_entry(top_tree(repo, commit), path)
    return None if isinstance(found, pygit2.Tree) else to_tree_entry(found)


def names_in(repo: Repository, commit: str, folder: str) -> list[str]:
    """List the names in a folder, in git's order; empty if there is no such folder."""
    found = tree_entry(top_tree(repo, commit), folder)
    return [entry.name or "" for entry in found] if isinstance(found, pygit2.Tree) else []


def kind_at(repo: Repository, commit: str, path: str) -> str | None:
    """Return `file`, `folder` or None for a path of a commit; links are files, submodules None."""
    top, inside = top_tree(repo, commit), _normal(path)
    found = tree_entry(top, inside) if inside else top
    return "folder" if isinstance(found, pygit2.Tree) else "file" if isinstance(found, pygit2.Blob) else None


def blob_id(repo: Repository, commit: str, path: str) -> str:
    """Return the id of a file or link of a commit. Raises NotFound."""
    return str(_require_at(repo, commit, path).id)


def blob_ids(repo: Repository, commit: str, paths: Iterable[str]) -> dict[str, str]:
    """Return path → id, for those of the paths at which a commit has a file or link."""
    tree = top_tree(repo, commit)
    found = ((path, tree_entry(tree, path)) for path in paths)
    return {path: str(entry.id) for path, entry in found if isinstance(entry, pygit2.Blob)}


def top_text(repo: Repository, tree: str, name: str) -> str:
    """Return a file at the top of a tree (or commit) as text; empty if there is none."""
    found = tree_entry(top_tree(repo, tree), name)
    return found.data.decode(errors="surrogateescape") if isinstance(found, pygit2.Blob) else ""


def _normal(path: str) -> str:
    return "/".join(filter(None, path.split("/")))


def _require_at(repo: Repository, commit: str, path: str) -> pygit2.Object:
    """Return the object at a path of a commit, checking each folder. Raises NotFound, ObjectBroken.

    The tree is walked by names only, and no tree contains '..' and the like.
    """
    found: pygit2.Object = top_tree(repo, commit)
    for name in filter(None, path.split("/")):
        if not isinstance(found, pygit2.Tree) or name not in found:
            raise NotFound(
                f"There is no {path!r} in commit {commit[:10]}.",
                code="path-not-found",
                next=f"List its files: maoctl dataset files {repo.path.stem}",
            )
        found = found[name]
        if isinstance(found, pygit2.Tree):
            check_object(repo, str(found.id))
    return found


# files and folders


def read_file(repo: Repository, commit: str, path: str) -> bytes:
    """Return the content of a file (of a link: its target); see `open_file`."""
    return b"".join(open_file(repo, commit, path).pieces)


def open_file(repo: Repository, commit: str, path: str) -> ContentStream:
    """Open a file (of a link: its target) to be read in pieces, with the content of an LFS pointer.

    Raises NotFound, InvalidInput, and ContentMissing if the content must be fetched first.
    """
    found = _require_at(repo, commit, path)
    if not isinstance(found, pygit2.Blob):
        raise InvalidInput(
            f"{path!r} is a folder.",
            code="path-not-a-file",
            next=f"List it: maoctl dataset files {repo.path.stem} --path {shlex.quote(path)}",
        )
    return open_content(repo, found.id, with_lfs=tree_uses_lfs(repo, commit))


def list_files(repo: Repository, commit: str, path: str) -> list[FileEntry]:
    """List the entries of a folder in git's order. Raises NotFound, InvalidInput."""
    found = _require_at(repo, commit, path)
    if not isinstance(found, pygit2.Tree):
        raise InvalidInput(
            f"{path!r} is a file.",
            code="path-not-a-folder",
            next=f"Read it: maoctl dataset cat {repo.path.stem} {shlex.quote(path)}",
        )
    with_lfs = tree_uses_lfs(repo, commit)
    entries = []
    for entry in found:
        mode = FileMode(entry.filemode)
        size = _content_size(repo, entry, with_lfs=with_lfs) if isinstance(entry, pygit2.Blob) else None
        kind, executable = _KINDS.get(mode, "file"), mode == FileMode.BLOB_EXECUTABLE
        entries.append(FileEntry(entry.name or "", kind, str(entry.id), size, executable))
    return entries


def _content_size(repo: Repository, blob: pygit2.Blob, *, with_lfs: bool) -> int:
    """Return the size of a file's content, which may be in Git LFS."""
    if lfs.may_be_pointer(blob.size):
        pointer = lfs.parse_pointer(blob.data)
        if pointer is not None and (with_lfs or lfs.has_lfs_content(repo, pointer)):
            return pointer.size
    return blob.size


def content_sizes(repo: Repository, commit: str, blobs: Iterable[str]) -> dict[str, int]:
    """Return the sizes in bytes of the contents of blobs of a commit; ids of other objects are left out."""
    with_lfs = tree_uses_lfs(repo, commit)
    found = ((blob, repo.git.get(blob)) for blob in blobs)
    return {
        blob: _content_size(repo, entry, with_lfs=with_lfs)
        for blob, entry in found
        if isinstance(entry, pygit2.Blob)
    }


def count_entries(repo: Repository, tree: str) -> int:
    """Return how many entries a folder has, not counting those of folders inside."""
    return len(top_tree(repo, tree))


def list_paths(repo: Repository, commit: str) -> list[str]:
    """List the paths of all files and links in a commit."""
    paths: list[str] = []
    folders = [("", top_tree(repo, commit))]
    while folders:
        inside, tree = folders.pop()
        check_object(repo, str(tree.id))
        for entry in tree:
            path = f"{inside}{entry.name}"
            if isinstance(entry, pygit2.Tree):
                folders.append((path + "/", entry))
            elif isinstance(entry, pygit2.Blob):
                paths.append(path)
    return paths


def archive_entries(repo: Repository, commit: str, path: str) -> list[ArchiveEntry]:
    """List all files and links below a folder.

    Raises InvalidInput (`dataset-unsafe`) for a name that an archive cannot hold or that leads out of it, and
    ContentMissing if the content of a file must be fetched first.
    """
    top = top_tree(repo, commit)
    inside = _normal(path)
    start = top[inside] if inside else top
    outward = escaping_links(list_links(repo, str(top.id)))
    found = _entries_below(repo, start.peel(pygit2.Tree), inside and f"{inside}/", lfs.uses_lfs(top))
    return [replace(entry, link=False) if entry.path in outward else entry for entry in found]


def _entries_below(
    repo: Repository, tree: pygit2.Tree, inside: str, with_lfs: bool
) -> Iterator[ArchiveEntry]:
    seen: set[str] = set()
    for entry in tree:
        path = f"{inside}{entry.name or ''}"
        if fault := path_fault(path):
            raise unsafe_name(path, f"cannot be put into an archive: {fault}")
        if path in seen:  # the second entry of a name would be written through the first
            raise unsafe_name(path, "occurs twice")
        seen.add(path)
        if isinstance(entry, pygit2.Tree):
            yield from _entries_below(repo, entry, f"{path}/", with_lfs)
        elif isinstance(entry, pygit2.Blob):
            mode, size = entry.filemode, blob_size(repo, str(entry.id))
            if lfs.may_be_pointer(size):
                size = open_content(repo, entry.id, with_lfs=with_lfs).size
            executable, link = mode == FileMode.BLOB_EXECUTABLE, mode == FileMode.LINK
            yield ArchiveEntry(path, str(entry.id), size, executable, link)
