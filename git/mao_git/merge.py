"""Bringing two lines of commits together: replay of ours onto the remote's, ground truth from a snapshot."""

from __future__ import annotations

import pygit2
from pygit2.enums import SortMode

from .attributes import without_lines
from .clone import Clone
from .commits import Sign, write_commit
from .lfs import ATTRIBUTES, uses_lfs
from .lfs_declared import settled
from .links import newly_leading_out
from .objects import top_tree
from .remotes.repository_errors import MergeConflict
from .tree_writer import Author


def base_of(clone: Clone, one: str, two: str) -> str | None:
    """The best common ancestor of two commits; None when their histories are unrelated."""
    base = clone.git.merge_base(one, two)
    return None if base is None else str(base)


def merge_trees(clone: Clone, base: str, ours: str, theirs: str) -> str:
    """Three-way merge of trees (ids of trees or commits); raises MergeConflict with the paths.

    Links that lead out of the tree only together, ours with theirs, are a conflict as well.
    """
    ancestor, one, two = (top_tree(clone, each) for each in (base, ours, theirs))
    index = clone.git.merge_trees(ancestor, one, two)
    if index.conflicts is not None and (real := _conflicts(clone, index, uses_lfs(one) or uses_lfs(two))):
        raise MergeConflict(sorted(real))
    merged = settled(clone, str(index.write_tree(clone.git)), (ours, theirs))
    if wrong := newly_leading_out(clone, merged, (ours, theirs)):
        raise MergeConflict(sorted(wrong))
    return merged


def _conflicts(clone: Clone, index: pygit2.Index, with_lfs: bool) -> set[str]:
    """The paths in conflict, once attributes files are settled in which only our lines for LFS are.

    Which lines there have to be is told by the tree that comes of it, see `settled`.
    """
    real = set()
    for three in list(index.conflicts or ()):
        path = next(entry.path for entry in three if entry is not None)
        if not with_lfs or path.rpartition("/")[2] != ATTRIBUTES:
            real.add(path)
            continue
        base, ours, theirs = (b"" if e is None else _own_words(clone, e.id) for e in three)
        if ours != theirs and base not in (ours, theirs):
            real.add(path)
            continue
        kept = three[1] if theirs == base else three[2]
        del index.conflicts[path]
        if kept is not None:
            index.add(pygit2.IndexEntry(path, kept.id, kept.mode))
    return real


def _own_words(clone: Clone, oid: pygit2.Oid) -> bytes:
    return without_lines(clone.git[oid].read_raw())


def replay(clone: Clone, tip: str, onto: str, sign: Sign | None, *, since: str | None = None) -> str:
    """Copies of the commits that `tip` has and `onto` lacks, on top of `onto`; the new tip.

    Messages, authors and their times stay; a signature does not, so `sign` makes a new one.
    `since`: a commit that is left out with all before it. Raises MergeConflict with the commit
    that does not fit.
    """
    base = base_of(clone, tip, onto)
    walker = clone.git.walk(tip, SortMode.TOPOLOGICAL | SortMode.REVERSE)
    walker.simplify_first_parent()
    for left_out in (base, since):
        if left_out is not None:
            walker.hide(left_out)
    for commit in list(walker):
        onto = _copy_onto(clone, commit, onto, sign)
    return onto


def _copy_onto(clone: Clone, commit: pygit2.Commit, onto: str, sign: Sign | None) -> str:
    before = commit.parents[0].tree.id if commit.parents else clone.git.TreeBuilder().write()
    try:
        tree = merge_trees(clone, str(before), onto, str(commit.id))
    except MergeConflict as conflict:
        raise MergeConflict(conflict.paths, str(commit.id)) from conflict
    return write_commit(clone.git, (commit.author, commit.committer), commit.message, tree, [onto], sign)


def join(clone: Clone, ours: str, theirs: str, author: Author) -> str:
    """A commit with both as parents and the content of ours; ours when it has theirs already."""
    if ours == theirs or clone.git.descendant_of(ours, theirs):
        return ours
    signature = author.signature()
    tree = top_tree(clone, ours).id
    message = f"Merge {theirs[:10]} from the remote, with this node's content\n"
    return write_commit(clone.git, (signature, signature), message, tree, [ours, theirs], author.sign)


def promote(clone: Clone, ground_truth: str | None, snapshot: str, author: Author) -> str:
    """The ground truth that has `snapshot`'s content: itself when it contains the old one, else a merge.

    A ground truth that holds the snapshot already stays as it is, so repeating this changes nothing.
    """
    if ground_truth is None or clone.git.descendant_of(snapshot, ground_truth):
        return snapshot
    if ground_truth == snapshot or clone.git.descendant_of(ground_truth, snapshot):
        return ground_truth
    signature = author.signature()
    tree = top_tree(clone, snapshot).id
    message = f"Take {snapshot[:10]} as ground truth\n"
    parents = [ground_truth, snapshot]
    return write_commit(clone.git, (signature, signature), message, tree, parents, author.sign)
