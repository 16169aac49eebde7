"""What several commits have at the paths where any differs from a common base, and trees made of that."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import pygit2
from pygit2.enums import FileMode

from .clone import Clone
from .content import open_blob
from .diff import Difference, differing, plain_name
from .links import leading_out, links_of
from .objects import top_tree
from .tree_writer import Content, tree_of, tree_with

MAX_ENTRIES = (
    5_000_000  # of all trees of one commit that differ from the base; a small pack can stand for more
)


class Entry(NamedTuple):
    """A file, link or submodule in a tree: git's id and mode."""

    id: str
    mode: int

    @property
    def is_file(self) -> bool:
        return self.mode in (FileMode.BLOB, FileMode.BLOB_EXECUTABLE)

    @property
    def executable(self) -> bool:
        return self.mode == FileMode.BLOB_EXECUTABLE


class TooManyEntries(Exception):
    """A commit's trees stand for more entries than are looked at."""


@dataclass(frozen=True, slots=True)
class Ballot:
    """A path: who has what there (who has nothing is not in `entries`), and what the base has."""

    path: str
    entries: Mapping[str, Entry]
    base: Entry | None


@dataclass(frozen=True, slots=True)
class Ballots:
    """`paths` in their order; `refused`: voters whose commit cannot be looked through, with the reason."""

    paths: list[Ballot]
    refused: dict[str, str]


@dataclass(slots=True)
class _Gathered:
    base: dict[str, Entry | None] = field(default_factory=dict)
    found: dict[str, dict[str, Entry | None]] = field(default_factory=dict)


def gather_ballots(clone: Clone, base: str | None, commits: Mapping[str, str]) -> Ballots:
    """Where any of the commits (voter → id) differs from `base` (None: the empty tree), by path.

    Folders that a commit has like the base are not looked into. Raises KeyError, OSError or pygit2.GitError
    for objects that are not here or broken.
    """
    root = None if base is None else top_tree(clone, base)
    gathered, refused = _Gathered(), {}
    for voter, commit in sorted(commits.items()):
        try:
            changes = list(_counted(root, top_tree(clone, commit)))
        except TooManyEntries as error:
            refused[voter] = str(error)
            continue
        for each in changes:
            gathered.base[each.path] = _entry(each.old)
            gathered.found.setdefault(each.path, {})[voter] = _entry(each.new)
    voters = [each for each in commits if each not in refused]
    return Ballots([_ballot(path, gathered, voters) for path in sorted(gathered.found)], refused)


def _counted(old: pygit2.Tree | None, new: pygit2.Tree) -> Iterator[Difference]:
    seen = 0

    def name_of(entry: pygit2.Object, inside: str) -> str:
        nonlocal seen
        seen += 1
        if seen > MAX_ENTRIES:
            raise TooManyEntries(f"its trees have more than {MAX_ENTRIES // 1_000_000} million entries")
        return plain_name(entry, inside)

    return differing(old, new, name_of)


def _entry(found: pygit2.Object | None) -> Entry | None:
    return None if found is None else Entry(str(found.id), int(found.filemode))


def _ballot(path: str, gathered: _Gathered, voters: Iterable[str]) -> Ballot:
    base, found = gathered.base[path], gathered.found[path]
    entries = {voter: found.get(voter, base) for voter in voters}
    return Ballot(path, {voter: entry for voter, entry in entries.items() if entry is not None}, base)


def entry_at(clone: Clone, commit: str, path: str) -> Entry | None:
    """The file, link or submodule that a commit has at a path."""
    found: pygit2.Object = top_tree(clone, commit)
    for name in path.split("/"):
        if not isinstance(found, pygit2.Tree) or name not in found:
            return None
        found = found[name]
    return None if isinstance(found, pygit2.Tree) else _entry(found)


def names_in(clone: Clone, commit: str, path: str) -> list[str]:
    """Names of what is in a folder, in git's order; none where there is no such folder."""
    found: pygit2.Object = top_tree(clone, commit)
    for name in path.split("/"):
        if not isinstance(found, pygit2.Tree) or name not in found:
            return []
        found = found[name]
    return [entry.name or "" for entry in found] if isinstance(found, pygit2.Tree) else []


def store_content(clone: Clone, content: bytes) -> str:
    """The id of a blob, which is written unless it is here."""
    return str(clone.git.create_blob(content))


def content_of(clone: Clone, content: str) -> bytes:
    """The bytes of a blob as git has it, of a large file its pointer; raises OSError, KeyError."""
    return b"".join(open_blob(clone, pygit2.Oid(hex=content)).pieces)


def size_of(clone: Clone, content: str) -> int:
    """Bytes of a blob, without reading it."""
    return int(clone.git.odb.read_header(pygit2.Oid(hex=content))[1])


def tree_placing(clone: Clone, base: str | None, placed: Mapping[str, Entry | None]) -> str:
    """The tree `base` with these entries in it, or (None) without them. The entries must fit each other."""
    there = {path for path, entry in placed.items() if entry is not None}
    folders = {parent for path in there for parent in _parents(path)}
    changes = {
        path: None if entry is None else Content(existing=entry)
        for path, entry in placed.items()
        if entry is not None or (path not in folders and there.isdisjoint(_parents(path)))
    }
    start = tree_of(clone, base)
    return tree_with(clone, start, changes) if changes else start


def without_links_out(clone: Clone, tree: str) -> tuple[str, dict[str, str]]:
    """A tree without the links that lead out of it, and why each was left out; the same on every node.

    Nodes' links may be harmless each and lead out together, so that the whole is judged. When links are gone,
    others may lead elsewhere: what is left is judged again, and in the end no link stays.
    """
    gone: dict[str, str] = {}
    for last in (False, False, True):
        links = links_of(clone, tree)
        wrong = leading_out(links)
        if not wrong:
            break
        if last:
            wrong = {path: wrong.get(path, "is a link among others that lead out") for path in links}
        gone |= wrong
        tree = tree_with(clone, tree, dict.fromkeys(wrong))
    return tree, gone


def _parents(path: str) -> Iterator[str]:
    end = path.find("/")
    while end != -1:
        yield path[:end]
        end = path.find("/", end + 1)
