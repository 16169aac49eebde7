"""What tells git and MAO which files of a tree are LFS pointers: `.gitattributes` and the mark `.mao/lfs`.

The mark says that every blob which looks like a pointer is one. It is MAO's alone: no tool is given it, and
what a tool puts there is ignored. `.gitattributes` belongs to the tool as well; with every commit our lines
are appended again, for those who use git. MAO itself reads them only where there is no mark, as in trees
of earlier versions and of people who use git-lfs.
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

LONGEST_LINE = 2047  # bytes; git ignores longer ones
_MARK = " filter=lfs diff=lfs merge=lfs -text"
_SPECIAL = re.compile(r"[\\*?\[\]]")
_BLANK = re.compile(r"[ \t\r\n]")  # what git separates words and lines by; other blanks are letters to it
_EXACT = re.compile(
    r"/(?:[^ \t\r\n\\*?\[\]]|\\[\\*?\[\]]|\[\[:space:\]\])+ filter=lfs diff=lfs merge=lfs -text"
)
MARK_TEXT = b"Every file here that looks like a Git LFS pointer is one. Written by MAO, for MAO.\n"


def line_for(path: str) -> str:
    """The line for one path, whatever characters it has."""
    return "/" + _BLANK.sub("[[:space:]]", _SPECIAL.sub(r"\\\g<0>", path)) + _MARK


def exact_lines(text: str) -> set[str]:
    """The lines that MAO wrote: each names one path."""
    return {line for line in text.split("\n") if _EXACT.fullmatch(line)}


def with_lines(text: str, lines: Collection[str]) -> str:
    """The file with these lines at its end, where nothing overrides them, and no others of MAO's.

    What others wrote stays as it is.
    """
    others = "\n".join(line for line in text.split("\n") if not _EXACT.fullmatch(line))
    begin = others if others.endswith("\n") or not others or not lines else f"{others}\n"
    return begin + "".join(f"{line}\n" for line in sorted(lines))


def with_paths(text: str, add: Collection[str], drop: Collection[str]) -> str:
    """The file with the lines of `add`, without those of `drop`."""
    gone = {line_for(path) for path in drop}
    return with_lines(text, (exact_lines(text) - gone) | {line_for(path) for path in add})


def without_lines(data: bytes) -> bytes:
    """The file without what MAO added to it."""
    return with_lines(data.decode(errors="surrogateescape"), ()).encode(errors="surrogateescape")


Texts = dict[str, bytes | None]
"""Path → new content of a file; None where it is to be removed."""


def lfs_pointers(repo: Repository, tree: str) -> dict[str, lfs.LfsPointer]:
    """The files of a tree (or commit) that look like pointers; looks at the size of every file."""
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
    """The attributes files that have to change so that git takes `add` for pointers, and `drop` no longer.

    `whole`: `add` are all pointers there are. Files in folders are changed where they lie, since they
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
    """All folders above these paths but the top, each with a slash at its end."""
    return {path[: at + 1] for path in paths for at, letter in enumerate(path) if letter == "/"}


def _text(found: pygit2.Object | None, path: str, *, needed: bool) -> str | None:
    """An attributes file as text; None for what git does not read as one and need not."""
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
    """Raises LfsConflict for a path that no line of attributes can name."""
    if len(line_for(path).encode()) > LONGEST_LINE:
        raise LfsConflict(
            path, "has a path that is too long for a large file: git ignores such long lines of attributes"
        )


def lfs_mark(repo: Repository, tree: str, *, wanted: bool) -> Texts:
    """How the mark has to change in a tree. Raises LfsConflict."""
    found = tree_entry(top_tree(repo, tree), MARK)
    if wanted:
        folder = tree_entry(top_tree(repo, tree), MARK.partition("/")[0])
        if folder is not None and not isinstance(folder, pygit2.Tree):
            raise LfsConflict(folder.name or "", "has to be a folder: MAO keeps its own files there")
        right = isinstance(found, pygit2.Blob) and found.data == MARK_TEXT
        return {} if right else {MARK: MARK_TEXT}
    return {} if found is None else {MARK: None}


def write_texts(repo: Repository, tree: str, texts: Mapping[str, bytes | None]) -> str:
    """The tree with these files."""
    changes = {path: None if text is None else Content.of(text) for path, text in texts.items()}
    return write_tree(repo, tree, changes) if changes else tree


def settle_lfs(repo: Repository, tree: str, sources: Collection[str]) -> str:
    """A tree that was merged from `sources` (trees or commits), with its LFS pointers declared.

    It gets the mark when a source has it. The result is the same on every node. What is in the way of a line
    or of the mark stays as it is; the other of the two is written nevertheless.
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
