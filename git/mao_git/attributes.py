"""`.gitattributes` and the mark `.mao/lfs`, which declare the LFS pointers of a tree to git and to MAO.

The mark means that every blob that looks like a pointer is one. Only MAO uses it: tools do not see it, and
a file that a tool writes there is ignored. Tools may write `.gitattributes` too; with every commit our lines
are appended again, for users of git. MAO itself reads them only if there is no mark, as in trees
of earlier versions and of users of git-lfs.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress

import pygit2
from pygit2.enums import FileMode

from . import lfs
from .errors import LfsConflict
from .lfs import ATTRIBUTES, MARK
from .objects import top_tree
from .repository import Repository, tree_entry
from .tree_writer import Content, write_tree

MAX_LINE = 2047  # bytes; git ignores longer ones
_MARK = " filter=lfs diff=lfs merge=lfs -text"
_SPECIAL = re.compile(r"[\\*?\[\]]")
_BLANK = re.compile(r"[ \t\r\n]")  # what separates words and lines for git; other blanks are letters to it
_EXACT = re.compile(
    r"/(?:[^ \t\r\n\\*?\[\]]|\\[\\*?\[\]]|\[\[:space:\]\])+ filter=lfs diff=lfs merge=lfs -text"
)
MARK_TEXT = b"Every file here that looks like a Git LFS pointer is one. Written by MAO, for MAO.\n"


def line_for(path: str) -> str:
    """Return the attributes line for one path, escaped."""
    return "/" + _BLANK.sub("[[:space:]]", _SPECIAL.sub(r"\\\g<0>", path)) + _MARK


def exact_lines(text: str) -> set[str]:
    """Return the lines that MAO wrote: those that name exactly one path."""
    return {line for line in text.split("\n") if _EXACT.fullmatch(line)}


def with_lines(text: str, lines: Collection[str]) -> str:
    """Replace MAO's lines in the text by these, at its end, where nothing overrides them.

    All other lines are kept.
    """
    others = "\n".join(line for line in text.split("\n") if not _EXACT.fullmatch(line))
    begin = others if others.endswith("\n") or not others or not lines else f"{others}\n"
    return begin + "".join(f"{line}\n" for line in sorted(lines))


def with_paths(text: str, add: Collection[str], drop: Collection[str]) -> str:
    """Add the lines of the paths `add` to the text, and remove those of `drop`."""
    gone = {line_for(path) for path in drop}
    return with_lines(text, (exact_lines(text) - gone) | {line_for(path) for path in add})


def has_lines(data: bytes) -> bool:
    """Return whether a file has lines that MAO wrote."""
    return bool(exact_lines(data.decode(errors="surrogateescape")))


def without_lines(data: bytes) -> bytes:
    """Remove MAO's lines from a file."""
    return with_lines(data.decode(errors="surrogateescape"), ()).encode(errors="surrogateescape")


Texts = dict[str, bytes | None]
"""Path → new content of a file; None to remove it."""


def lfs_pointers(repo: Repository, tree: str) -> dict[str, lfs.LfsPointer]:
    """Return the files of a tree (or commit) that are pointers. Checks the size of every file."""
    return dict(_pointers(repo, top_tree(repo, tree), ""))


def _pointers(repo: Repository, tree: pygit2.Tree, inside: str) -> Iterator[tuple[str, lfs.LfsPointer]]:
    for entry in tree:
        if isinstance(entry, pygit2.Tree):
            yield from _pointers(repo, entry, f"{inside}{entry.name}/")
        elif isinstance(entry, pygit2.Blob) and entry.filemode != FileMode.LINK:
            size = int(repo.git.odb.read_header(entry.id)[1])
            pointer = lfs.parse_pointer(entry.data) if lfs.may_be_pointer(size) else None
            if pointer is not None:
                yield f"{inside}{entry.name}", pointer


def lfs_attributes(
    repo: Repository, tree: str, add: Collection[str], drop: Collection[str] = (), *, whole: bool
) -> Texts:
    """Return the changed attributes files by which git treats `add` as pointers, and `drop` no longer.

    `whole`: `add` has all pointers of the tree. Files in folders are changed in place, since they
    override the one at the top. Raises LfsConflict.
    """
    top, texts = top_tree(repo, tree), Texts()
    for folder in ["", *sorted(_folders({*add, *drop}))]:
        path = f"{folder}{ATTRIBUTES}"
        found = tree_entry(top, path)
        if folder and not isinstance(found, pygit2.Blob):
            continue
        inner, outer = (
            [name.removeprefix(folder) for name in paths if name.startswith(folder)] for paths in (add, drop)
        )
        before = _text(found, path, needed=bool(inner))
        if before is None:
            continue
        after = (
            with_lines(before, {line_for(name) for name in inner})
            if whole
            else with_paths(before, inner, outer)
        )
        if after != before:
            texts[path] = after.encode(errors="surrogateescape") or (b"" if folder else None)
    return texts


def _folders(paths: Iterable[str]) -> set[str]:
    """Return all folders above these paths except the top, each with a trailing slash."""
    return {path[: at + 1] for path in paths for at, letter in enumerate(path) if letter == "/"}


def _text(found: pygit2.Object | None, path: str, *, needed: bool) -> str | None:
    """Return an attributes file as text; None if git does not read it and it is not needed."""
    if found is None:
        return ""
    if isinstance(found, pygit2.Blob) and found.filemode != FileMode.LINK:
        if needed and b"\0" in found.data:
            raise LfsConflict(path, "has a NUL byte, and git ignores attributes after it")
        return found.data.decode(errors="surrogateescape")
    if needed:
        raise LfsConflict(path, "has to be a file, since the dataset keeps large files in Git LFS")
    return None


def check_line(path: str) -> None:
    """Raise LfsConflict for a path that is too long for a line of attributes."""
    if len(line_for(path).encode()) > MAX_LINE:
        raise LfsConflict(path, "has too long a path for a large file: git ignores attribute lines that long")


def lfs_mark(repo: Repository, tree: str, *, wanted: bool) -> Texts:
    """Return the change that adds or removes the mark in a tree. Raises LfsConflict."""
    found = tree_entry(top_tree(repo, tree), MARK)
    if wanted:
        folder = tree_entry(top_tree(repo, tree), MARK.partition("/")[0])
        if folder is not None and not isinstance(folder, pygit2.Tree):
            raise LfsConflict(folder.name or "", "has to be a folder: MAO keeps its own files there")
        right = isinstance(found, pygit2.Blob) and found.data == MARK_TEXT
        return {} if right else {MARK: MARK_TEXT}
    return {} if found is None else {MARK: None}


def write_texts(repo: Repository, tree: str, texts: Mapping[str, bytes | None]) -> str:
    """Return the tree with these files written or removed."""
    changes = {path: None if text is None else Content.of(text) for path, text in texts.items()}
    return write_tree(repo, tree, changes) if changes else tree


def settle_lfs(repo: Repository, tree: str, sources: Collection[str]) -> str:
    """Declare the LFS pointers of a tree that was merged from `sources` (trees or commits).

    The mark is added if a source has it. The result is the same on every node. A file in the way of a line
    or of the mark stays as it is, and the other of the two is still written.
    """
    top, tops = top_tree(repo, tree), [top_tree(repo, source) for source in sources]
    if not any(lfs.uses_lfs(root) for root in tops):
        return tree
    texts, has_pointers = Texts(), lfs.uses_lfs(top)
    attributes = (tree_entry(root, ATTRIBUTES) for root in (top, *tops))
    if len({None if found is None else found.id for found in attributes}) > 1:
        pointers = lfs_pointers(repo, tree)
        has_pointers = bool(pointers)
        with suppress(LfsConflict):
            texts |= lfs_attributes(repo, tree, pointers, whole=True)
    if has_pointers and any(tree_entry(root, MARK) is not None for root in tops):
        with suppress(LfsConflict):
            texts |= lfs_mark(repo, tree, wanted=True)
    return write_texts(repo, tree, texts)
