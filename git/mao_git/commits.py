"""Finding and listing commits, creating and signing them, merging and replaying them."""

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
from .trees import tree_of

_COMMIT = re.compile(r"[0-9a-f]{7,40}")
_BRANCH = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,199}")
_NEWEST_FIRST = SortMode.TOPOLOGICAL | SortMode.TIME
Sign = Callable[[bytes], str]
"""Returns the armored signature of a commit's content."""


@dataclass(frozen=True, slots=True)
class Author:
    """The author of a commit, and its time. With `sign` the commit is signed."""

    name: str
    email: str
    moment: datetime
    sign: Sign | None = None


@dataclass(frozen=True, slots=True)
class LogEntry:
    """A commit of a log. `time`: by its committer's clock, in UTC; `signature`: armored, if it is signed."""

    commit: str
    parents: list[str]
    author: str
    email: str
    time: datetime
    message: str
    signature: str | None = None


# finding commits


def resolve(repo: Repository, ref: str) -> str:
    """Return the commit that a branch name or commit id stands for. Raises InvalidInput, NotFound."""
    if not _BRANCH.fullmatch(ref) or ".." in ref or ref.endswith(".lock"):
        raise InvalidInput(
            f"{ref!r} is neither a branch nor a commit id.",
            code="ref-invalid",
            next="Give a branch such as ground-truth or a node's name, or a commit's hexadecimal id.",
        )
    tip = latest_tip(repo, ref)
    if tip is None and _COMMIT.fullmatch(ref):
        try:
            found = repo.git[ref]
        except (KeyError, ValueError):  # absent, ambiguous
            found = None
        tip = str(found.id) if found is not None and found.type == ObjectType.COMMIT else None
    if tip is None:
        raise NotFound(
            f"The dataset has no branch or commit {ref!r} on this node.",
            code="ref-not-found",
            next=f"List its branches: maoctl dataset branches {repo.path.stem}.",
        )
    return tip


def rev_parse(repo: Repository, text: str) -> str:
    """Return the commit that a revision names for git: a branch, a remote's branch, a tag, an id, `main~2`.

    Raises NotFound, and InvalidInput for a text that is ambiguous or leads to no commit.
    """
    try:
        return str(repo.git.revparse_single(text).peel(pygit2.Commit).id)
    except (KeyError, pygit2.GitError, ValueError) as error:
        # libgit2 takes a short text for the beginning of an id; here it is a name that does not exist.
        if isinstance(error, KeyError) or "too short" in str(error):
            raise NotFound(
                f"The repository has no branch, tag or commit {text!r}.",
                code="ref-not-found",
                next=f"List the branches: git -C {repo.path} branch --all",
            ) from None
        raise InvalidInput(
            f"{text!r} is not a commit: {error}.",
            code="ref-invalid",
            next="Give a branch, a tag or a commit's id.",
        ) from error


def has_commit(repo: Repository, commit: str) -> bool:
    """True if a commit is here with its tree; a shallow clone may lack it."""
    try:
        top_tree(repo, commit)
    except (KeyError, ValueError, pygit2.GitError):
        return False
    return True


def is_commit(repo: Repository, text: str) -> bool:
    """True if an untrusted text is the full id of a commit that is here with its tree."""
    if re.fullmatch("[0-9a-f]{40}", text) is None or not has_commit(repo, text):
        return False
    return bool(repo.git[text].type == ObjectType.COMMIT)


def read_parent(repo: Repository, commit: str) -> str | None:
    """Return the first parent of a commit; None for a root commit."""
    parents = repo.git[commit].peel(pygit2.Commit).parent_ids
    return str(parents[0]) if parents else None


def commit_time(repo: Repository, commit: str) -> datetime:
    """Return a commit's time, by its committer's clock."""
    return datetime.fromtimestamp(repo.git[commit].peel(pygit2.Commit).commit_time, UTC)


def list_log(repo: Repository, start: str, limit: int) -> tuple[list[LogEntry], str | None]:
    """Return commits from `start` on, newest first, and the first commit of the next page."""
    entries: list[LogEntry] = []
    for commit in repo.git.walk(start, _NEWEST_FIRST):
        if len(entries) == limit:
            return entries, str(commit.id)
        entries.append(log_entry(commit))
    return entries, None


def log_since(repo: Repository, start: str, known: str | None, limit: int) -> Iterator[LogEntry]:
    """Yield at most `limit` commits that are reachable from `start` and not from `known`, newest first."""
    walker = repo.git.walk(start, _NEWEST_FIRST)
    if known is not None and known in repo.git:
        walker.hide(known)
    for _, commit in zip(range(limit), walker, strict=False):
        yield log_entry(commit)


def first_parents(repo: Repository, start: str) -> Iterator[LogEntry]:
    """Yield a commit and its line of first parents, as far as the repository has them."""
    commit: str | None = start
    while commit is not None and commit in repo.git:
        found = repo.git[commit].peel(pygit2.Commit)
        yield log_entry(found)
        commit = str(found.parent_ids[0]) if found.parent_ids else None


def log_entry(commit: pygit2.Commit) -> LogEntry:
    parents = [str(parent) for parent in commit.parent_ids]
    moment = datetime.fromtimestamp(commit.commit_time, UTC)
    author, signature = commit.author, commit.gpg_signature[0]
    return LogEntry(
        str(commit.id),
        parents,
        author.name,
        author.email,
        moment,
        commit.message,
        None if signature is None else signature.decode(errors="replace"),
    )


def find_commit(
    repo: Repository, tip: str, since: str | None, matches: Callable[[str], bool], limit: int = 10_000
) -> str | None:
    """Return the newest commit from `tip` to `since` (excluded) whose message matches, among `limit`."""
    walker = repo.git.walk(tip, SortMode.TOPOLOGICAL)
    if since is not None and since in repo.git:
        walker.hide(since)
    for seen, commit in enumerate(walker):
        if seen >= limit:
            return None
        if matches(commit.message):
            return str(commit.id)
    return None


# creating commits


def write_commit(
    git: pygit2.Repository,
    people: tuple[pygit2.Signature, pygit2.Signature],
    message: str,
    tree: str | pygit2.Oid,
    parents: Sequence[str],
    sign: Sign | None,
) -> str:
    """Create a commit that is on no branch yet; return its id. `people`: author and committer."""
    author, committer = people
    if sign is None:
        return str(git.create_commit(None, author, committer, message, tree, list(parents)))
    content = str(git.create_commit_string(author, committer, message, tree, list(parents)))
    return str(git.create_commit_with_signature(content, sign(content.encode())))


def commit_tree(repo: Repository, tree: str, parents: list[str], message: str, author: Author) -> str:
    """Create a commit that is on no branch yet; return its id. See `move_branch`."""
    signature = pygit2.Signature(author.name, author.email, int(author.moment.timestamp()), 0)
    return write_commit(repo.git, (signature, signature), message, tree, parents, author.sign)


# merging


def merge_base(repo: Repository, one: str, two: str) -> str | None:
    """Return the best common ancestor of two commits; None if their histories are unrelated."""
    base = repo.git.merge_base(one, two)
    return None if base is None else str(base)


def merge_trees(repo: Repository, base: str, ours: str, theirs: str) -> str:
    """Merge trees (ids of trees or commits) three-way; return the tree. Raises MergeConflict with the paths.

    Links of both sides that lead out of the tree only in combination are a conflict as well.
    """
    ancestor, one, two = (top_tree(repo, oid) for oid in (base, ours, theirs))
    index = repo.git.merge_trees(ancestor, one, two)
    if index.conflicts is not None and (real := _conflicts(repo, index, uses_lfs(one) or uses_lfs(two))):
        raise MergeConflict(sorted(real))
    merged = settle_lfs(repo, str(index.write_tree(repo.git)), (ours, theirs))
    if escaping := new_escaping_links(repo, merged, (ours, theirs)):
        raise MergeConflict(sorted(escaping))
    return merged


def _conflicts(repo: Repository, index: pygit2.Index, with_lfs: bool) -> set[str]:
    """Return the paths in conflict, after resolving attributes files that differ only in our lines for LFS.

    Which of those lines the result needs depends on the merged tree, see `settle_lfs`.
    """
    real = set()
    for versions in list(index.conflicts or ()):
        path = next(entry.path for entry in versions if entry is not None)
        if not with_lfs or path.rpartition("/")[2] != ATTRIBUTES:
            real.add(path)
            continue
        base, ours, theirs = (
            b"" if version is None else without_lines(repo.git[version.id].read_raw()) for version in versions
        )
        if ours != theirs and base not in (ours, theirs):
            real.add(path)
            continue
        kept = versions[1] if theirs == base else versions[2]
        del index.conflicts[path]
        if kept is not None:
            index.add(pygit2.IndexEntry(path, kept.id, kept.mode))
    return real


def replay(repo: Repository, tip: str, onto: str, sign: Sign | None, *, since: str | None = None) -> str:
    """Copy the commits that `tip` has and `onto` lacks on top of `onto`; return the new tip.

    Messages, authors and times are kept; signatures are made anew by `sign`. `since`: a commit left
    out with its ancestors. Raises MergeConflict with the commit that conflicts.
    """
    base = merge_base(repo, tip, onto)
    walker = repo.git.walk(tip, SortMode.TOPOLOGICAL | SortMode.REVERSE)
    walker.simplify_first_parent()
    for left_out in (base, since):
        if left_out is not None:
            walker.hide(left_out)
    for commit in list(walker):
        before = commit.parents[0].tree.id if commit.parents else repo.git.TreeBuilder().write()
        try:
            tree = merge_trees(repo, str(before), onto, str(commit.id))
        except MergeConflict as conflict:
            raise MergeConflict(conflict.paths, str(commit.id)) from conflict
        people = (commit.author, commit.committer)
        onto = write_commit(repo.git, people, commit.message, tree, [onto], sign)
    return onto


def merge_keeping_ours(repo: Repository, ours: str, theirs: str, author: Author) -> str:
    """Create a commit with both parents and the content of ours; return ours if it contains theirs."""
    if ours == theirs or repo.git.descendant_of(ours, theirs):
        return ours
    message = f"Merge {theirs[:10]} from the remote, with this node's content\n"
    return commit_tree(repo, tree_of(repo, ours), [ours, theirs], message, author)


def promote(repo: Repository, ground_truth: str | None, snapshot: str, author: Author) -> str:
    """Return a ground truth with the content of `snapshot`: itself if it contains the old one, else a merge.

    A ground truth that contains the snapshot already is returned as it is, so that repeating changes nothing.
    """
    if ground_truth is None or repo.git.descendant_of(snapshot, ground_truth):
        return snapshot
    if ground_truth == snapshot or repo.git.descendant_of(ground_truth, snapshot):
        return ground_truth
    message = f"Take {snapshot[:10]} as ground truth\n"
    return commit_tree(repo, tree_of(repo, snapshot), [ground_truth, snapshot], message, author)
