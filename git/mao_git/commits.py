"""Commits: found and listed, made and signed, merged and replayed.

Making commits, signed where this node has a key for it.

Bringing two lines of commits together: replay of ours onto the remote's, ground truth from a snapshot.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import pygit2
from pygit2.enums import ObjectType, SortMode

from mao_shared.errors import InvalidInput, NotFound

from .attributes import settle_lfs, without_lines
from .branches import latest_tip
from .errors import MergeConflict
from .lfs import ATTRIBUTES, uses_lfs
from .objects import top_tree
from .paths import new_escaping_links
from .repository import Repository

Sign = Callable[[bytes], str]


"""From a commit's content to its armored signature."""


def write_commit(
    git: pygit2.Repository,
    who: tuple[pygit2.Signature, pygit2.Signature],
    message: str,
    tree: str | pygit2.Oid,
    parents: Sequence[str],
    sign: Sign | None,
) -> str:
    """A commit that no branch leads to yet; `who`: author and committer."""
    author, committer = who
    if sign is None:
        return str(git.create_commit(None, author, committer, message, tree, list(parents)))
    content = str(git.create_commit_string(author, committer, message, tree, list(parents)))
    return str(git.create_commit_with_signature(content, sign(content.encode())))


def merge_base(repo: Repository, one: str, two: str) -> str | None:
    """The best common ancestor of two commits; None when their histories are unrelated."""
    base = repo.git.merge_base(one, two)
    return None if base is None else str(base)


def merge_trees(repo: Repository, base: str, ours: str, theirs: str) -> str:
    """Three-way merge of trees (ids of trees or commits); raises MergeConflict with the paths.

    Links that lead out of the tree only together, ours with theirs, are a conflict as well.
    """
    ancestor, one, two = (top_tree(repo, each) for each in (base, ours, theirs))
    index = repo.git.merge_trees(ancestor, one, two)
    if index.conflicts is not None and (real := _conflicts(repo, index, uses_lfs(one) or uses_lfs(two))):
        raise MergeConflict(sorted(real))
    merged = settle_lfs(repo, str(index.write_tree(repo.git)), (ours, theirs))
    if wrong := new_escaping_links(repo, merged, (ours, theirs)):
        raise MergeConflict(sorted(wrong))
    return merged


def _conflicts(repo: Repository, index: pygit2.Index, with_lfs: bool) -> set[str]:
    """The paths in conflict, once attributes files are settled in which only our lines for LFS are.

    Which lines there have to be is told by the tree that comes of it, see `settle_lfs`.
    """
    real = set()
    for three in list(index.conflicts or ()):
        path = next(entry.path for entry in three if entry is not None)
        if not with_lfs or path.rpartition("/")[2] != ATTRIBUTES:
            real.add(path)
            continue
        base, ours, theirs = (b"" if e is None else _own_words(repo, e.id) for e in three)
        if ours != theirs and base not in (ours, theirs):
            real.add(path)
            continue
        kept = three[1] if theirs == base else three[2]
        del index.conflicts[path]
        if kept is not None:
            index.add(pygit2.IndexEntry(path, kept.id, kept.mode))
    return real


def _own_words(repo: Repository, oid: pygit2.Oid) -> bytes:
    return without_lines(repo.git[oid].read_raw())


def replay(repo: Repository, tip: str, onto: str, sign: Sign | None, *, since: str | None = None) -> str:
    """Copies of the commits that `tip` has and `onto` lacks, on top of `onto`; the new tip.

    Messages, authors and their times stay; a signature does not, so `sign` makes a new one.
    `since`: a commit that is left out with all before it. Raises MergeConflict with the commit
    that does not fit.
    """
    base = merge_base(repo, tip, onto)
    walker = repo.git.walk(tip, SortMode.TOPOLOGICAL | SortMode.REVERSE)
    walker.simplify_first_parent()
    for left_out in (base, since):
        if left_out is not None:
            walker.hide(left_out)
    for commit in list(walker):
        onto = _copy_onto(repo, commit, onto, sign)
    return onto


def _copy_onto(repo: Repository, commit: pygit2.Commit, onto: str, sign: Sign | None) -> str:
    before = commit.parents[0].tree.id if commit.parents else repo.git.TreeBuilder().write()
    try:
        tree = merge_trees(repo, str(before), onto, str(commit.id))
    except MergeConflict as conflict:
        raise MergeConflict(conflict.paths, str(commit.id)) from conflict
    return write_commit(repo.git, (commit.author, commit.committer), commit.message, tree, [onto], sign)


def merge_keeping_ours(repo: Repository, ours: str, theirs: str, author: Author) -> str:
    """A commit with both as parents and the content of ours; ours when it has theirs already."""
    if ours == theirs or repo.git.descendant_of(ours, theirs):
        return ours
    signature = author.signature()
    tree = top_tree(repo, ours).id
    message = f"Merge {theirs[:10]} from the remote, with this node's content\n"
    return write_commit(repo.git, (signature, signature), message, tree, [ours, theirs], author.sign)


def promote(repo: Repository, ground_truth: str | None, snapshot: str, author: Author) -> str:
    """The ground truth that has `snapshot`'s content: itself when it contains the old one, else a merge.

    A ground truth that holds the snapshot already stays as it is, so repeating this changes nothing.
    """
    if ground_truth is None or repo.git.descendant_of(snapshot, ground_truth):
        return snapshot
    if ground_truth == snapshot or repo.git.descendant_of(ground_truth, snapshot):
        return ground_truth
    signature = author.signature()
    tree = top_tree(repo, snapshot).id
    message = f"Take {snapshot[:10]} as ground truth\n"
    parents = [ground_truth, snapshot]
    return write_commit(repo.git, (signature, signature), message, tree, parents, author.sign)


@dataclass(frozen=True, slots=True)
class Author:
    """Who commits, and when; with `sign` the commits are signed."""

    name: str
    email: str
    moment: datetime
    sign: Sign | None = None  # makes the signature of what is committed

    def signature(self) -> pygit2.Signature:
        return pygit2.Signature(self.name, self.email, int(self.moment.timestamp()), 0)


def commit_tree(repo: Repository, tree: str, parents: list[str], message: str, author: Author) -> str:
    """A commit that no branch leads to yet; see `move_branch`."""
    signature = author.signature()
    return write_commit(repo.git, (signature, signature), message, tree, parents, author.sign)


def find_commit(
    repo: Repository, tip: str, since: str | None, matches: Callable[[str], bool], limit: int = 10_000
) -> str | None:
    """The newest commit from `tip` down to (without) `since` whose message matches."""
    for seen, commit in enumerate(_walk(repo, tip, since)):
        if seen >= limit:
            return None
        if matches(commit.message):
            return str(commit.id)
    return None


def _walk(repo: Repository, tip: str, since: str | None) -> Iterator[pygit2.Commit]:
    walker = repo.git.walk(tip, SortMode.TOPOLOGICAL)
    if since is not None and since in repo.git:
        walker.hide(since)
    return iter(walker)


def has_commit(repo: Repository, commit: str) -> bool:
    """Whether a commit is here with its tree; a shallow clone may lack it."""
    try:
        top_tree(repo, commit)
    except (KeyError, ValueError, pygit2.GitError):
        return False
    return True


def is_commit(repo: Repository, text: str) -> bool:
    """Whether a text of a stranger is the full id of a commit that is here with its tree."""
    if re.fullmatch("[0-9a-f]{40}", text) is None or not has_commit(repo, text):
        return False
    return bool(repo.git[text].type == ObjectType.COMMIT)


def rev_parse(repo: Repository, text: str) -> str:
    """The commit that git means by `text`: a branch, also of a remote, a tag, a commit's id, `main~2`.

    Raises NotFound, and InvalidInput for what is ambiguous or leads to no commit.
    """
    try:
        return str(repo.git.revparse_single(text).peel(pygit2.Commit).id)
    except KeyError:
        raise _no_revision(repo, text) from None
    except (pygit2.GitError, ValueError, UnicodeError) as error:
        if "too short" in str(error):  # it could be the beginning of an id, which nobody meant
            raise _no_revision(repo, text) from None
        raise InvalidInput(
            f"{text!r} names no commit: {error}.",
            code="ref-invalid",
            next="Give a branch, a tag or a commit's id.",
        ) from error


def _no_revision(repo: Repository, text: str) -> NotFound:
    return NotFound(
        f"The repository has no branch, tag or commit {text!r}.",
        code="ref-not-found",
        next=f"See what there is: git -C {repo.path} branch --all",
    )


_COMMIT = re.compile(r"[0-9a-f]{7,40}")

_BRANCH = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,199}")


@dataclass(frozen=True, slots=True)
class LogEntry:
    commit: str
    parents: list[str]
    author: str
    email: str
    time: datetime
    message: str


def resolve(repo: Repository, ref: str) -> str:
    """The commit that a branch name or commit id means; raises InvalidInput or NotFound."""
    if not _BRANCH.fullmatch(ref) or ".." in ref or ref.endswith(".lock"):
        raise InvalidInput(
            f"{ref!r} is neither a branch nor a commit id.",
            code="ref-invalid",
            next="Give a branch such as ground-truth or a node's name, or a commit's hexadecimal id.",
        )
    tip = latest_tip(repo, ref)
    if tip is None and _COMMIT.fullmatch(ref):
        tip = _commit_named(repo, ref)
    if tip is None:
        raise NotFound(
            f"The dataset has no branch or commit {ref!r} on this node.",
            code="ref-not-found",
            next=f"See its branches: maoctl dataset branches {repo.path.stem}.",
        )
    return tip


def _commit_named(repo: Repository, prefix: str) -> str | None:
    try:
        found = repo.git[prefix]
    except (KeyError, ValueError):
        return None
    return str(found.id) if found.type == ObjectType.COMMIT else None


def list_log(repo: Repository, start: str, limit: int) -> tuple[list[LogEntry], str | None]:
    """Commits from `start` on, newest first, and the one where the next page begins."""
    entries: list[LogEntry] = []
    for commit in repo.git.walk(start, SortMode.TOPOLOGICAL | SortMode.TIME):
        if len(entries) == limit:
            return entries, str(commit.id)
        entries.append(_log_entry(commit))
    return entries, None


def log_since(repo: Repository, start: str, known: str | None, most: int) -> Iterator[LogEntry]:
    """Commits that `start` leads to and `known` does not, newest first, at most so many."""
    walker = repo.git.walk(start, SortMode.TOPOLOGICAL | SortMode.TIME)
    if known is not None and known in repo.git:
        walker.hide(known)
    for _, commit in zip(range(most), walker, strict=False):
        yield _log_entry(commit)


def commit_time(repo: Repository, commit: str) -> datetime:
    """When a commit was made, by its committer's clock."""
    return datetime.fromtimestamp(repo.git[commit].peel(pygit2.Commit).commit_time, UTC)


def first_parents(repo: Repository, start: str) -> Iterator[LogEntry]:
    """A commit, its first parent, that one's first parent, and so on as far as the clone has them."""
    commit: str | None = start
    while commit is not None and commit in repo.git:
        found = repo.git[commit].peel(pygit2.Commit)
        yield _log_entry(found)
        commit = str(found.parent_ids[0]) if found.parent_ids else None


def _log_entry(commit: pygit2.Commit) -> LogEntry:
    parents = [str(parent) for parent in commit.parent_ids]
    moment = datetime.fromtimestamp(commit.commit_time, UTC)
    return LogEntry(str(commit.id), parents, commit.author.name, commit.author.email, moment, commit.message)


def parent_of(repo: Repository, commit: str) -> str | None:
    """The first parent of a commit."""
    parents = repo.git[commit].peel(pygit2.Commit).parent_ids
    return str(parents[0]) if parents else None
