"""Moves commits that only a broken clone has to the new clone of its dataset.

May be repeated: a commit that is there already, by its id or as the same step of the same run, is not added
again. Readable commits keep their ids; those above a damaged commit are recreated.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pygit2
from pygit2.enums import ObjectType

from mao_git.branches import KNOWN, RESCUED, contains, find_tip
from mao_git.commits import Sign, merge_trees, write_commit
from mao_git.errors import MergeConflict, ObjectBroken, git_errors
from mao_git.objects import ObjectUnreadable, RawCommit, RawObjects, is_large, is_whole, loose_path
from mao_git.repository import HEADS, Repository
from mao_git.trees import tree_of

from .fsck import read_references

KeyOf = Callable[[str], str | None]


@dataclass(slots=True)
class Salvaged:
    """`kept`: commits that were moved; `lost`: commit → why it was not, and which step it was."""

    kept: list[str] = field(default_factory=list)
    lost: dict[str, str] = field(default_factory=dict)


@git_errors()
def salvage(
    broken: Path,
    repo: Repository,
    branch: str,
    key_of: KeyOf,
    sign: Sign | None,
    *,
    beside: str | None = None,
) -> Salvaged:
    """Move the commits of our branch that only the repository `broken` has to `repo`.

    `key_of`: names the step of a commit by its message, the same for a copy; None for a commit that this node
    did not make for its branch. `beside`: another branch of ours that is kept as it is, if it can be read.
    Raises RepositoryError if `repo` cannot be written to.
    """
    work = _Salvage(RawObjects(broken), repo, branch, key_of, sign)
    references = read_references(broken)
    work.salvage(
        references.get(HEADS + branch), unsure=HEADS + branch not in references or None in references.values()
    )
    for name, oid in references.items():
        is_kept = name.startswith(RESCUED) or name == KNOWN + branch
        if oid is not None and (is_kept or (beside is not None and name == HEADS + beside)):
            work.keep_reference(name, oid)
    theirs = find_tip(repo, branch, remote=True)
    if theirs is not None and find_tip(repo, branch) is None:
        repo.git.references.create(HEADS + branch, theirs)  # a running step is based on it
    _copy_lfs(broken, repo, work.done)
    return work.done


class _Salvage:
    def __init__(
        self, objects: RawObjects, repo: Repository, branch: str, key_of: KeyOf, sign: Sign | None
    ) -> None:
        self.done = Salvaged()
        self._objects, self._repo, self._branch = objects, repo, branch
        self._key_of, self._sign = key_of, sign
        self._present: set[str] = set()  # objects that are in the clone already

    # finding the commits

    def salvage(self, tip: str | None, *, unsure: bool) -> None:
        """Copy or recreate the commits. `unsure`: the branch's file may be wrong, so search all commits."""
        chain, whole = self._chain(tip)
        if unsure or not whole:
            chain = self._with_others(chain)
        held: set[str | None] = set()  # keys of the commits of the new clone's branch
        if (new_tip := self._tip()) is not None:
            held = {self._key_of(commit.message) for commit in self._repo.git.walk(new_tip)} - {None}
        wanted = [commit for commit in chain if self._key_of(commit.message) not in held]
        if whole and not unsure and len(wanted) == len(chain):
            self._copy_all(wanted)
        else:
            self._rebuild(wanted)

    def _chain(self, tip: str | None) -> tuple[list[RawCommit], bool]:
        """Return the commits between the clone and `tip`, oldest first; and True if all could be read."""
        chain: list[RawCommit] = []
        while tip is not None and tip not in self._repo.git:
            try:
                commit = self._objects.commit(tip)
            except ObjectUnreadable as error:
                self.done.lost[tip] = f"the commit {error}"
                return chain[::-1], False
            chain.append(commit)
            tip = commit.parents[0] if commit.parents else None
        return chain[::-1], True

    def _with_others(self, chain: list[RawCommit]) -> list[RawCommit]:
        """Add commits of ours that no reference leads to any more: parents first, otherwise by time."""
        known = {commit.id for commit in chain}
        ours = {
            commit.id: commit
            for commit in self._objects.all_commits()
            if commit.id not in known and commit.id not in self._repo.git and self._key_of(commit.message)
        }
        ordered: dict[str, RawCommit] = {}
        for commit in sorted(ours.values(), key=lambda commit: _person(commit, b"committer").time):
            line = [commit]
            while line[-1].parents and line[-1].parents[0] in ours and line[-1].parents[0] not in ordered:
                line.append(ours[line[-1].parents[0]])
            ordered |= {ancestor.id: ancestor for ancestor in reversed(line)}
        return [*ordered.values(), *chain]

    # copying them

    def _copy_all(self, chain: list[RawCommit]) -> None:
        """Copy commits as they are. The first unreadable one is lost; those above it are recreated."""
        for place, commit in enumerate(chain):
            try:
                self._copy(commit)
            except ObjectUnreadable as error:
                self._mark_lost(commit, str(error))
                self._rebuild(chain[place + 1 :])
                return
            self._move(commit.id)

    def _rebuild(self, commits: list[RawCommit]) -> None:
        """Copy commits on top of the branch, each with its changes against its parent."""
        for commit in commits:
            try:
                self._copy_tree(commit.tree)
                before = self._readable_tree_before(commit)
                tip = self._tip()
                theirs = tree_of(self._repo, tip)
                tree = (
                    commit.tree if theirs == before else merge_trees(self._repo, before, theirs, commit.tree)
                )
                if tree == theirs and tip is not None and self._key_of(commit.message) is None:
                    continue  # a merge or the branch's first commit, which add nothing
                parents = [] if tip is None else [tip]
                if parents == commit.parents and tree == commit.tree:
                    self._move(str(self._repo.git.write(ObjectType.COMMIT, commit.raw)))
                    continue
                people = (_person(commit, b"author"), _person(commit, b"committer"))
                self._move(write_commit(self._repo.git, people, commit.message, tree, parents, self._sign))
            except ObjectUnreadable as error:
                self._mark_lost(commit, str(error))
            except MergeConflict as conflict:
                self._mark_lost(commit, f"it conflicts with the branch's current content in {conflict}")

    def _readable_tree_before(self, commit: RawCommit) -> str:
        """Return the tree of the nearest intact ancestor; without one, the branch's current tree."""
        at = commit
        with suppress(ObjectUnreadable):
            while at.parents:
                if at.parents[0] in self._repo.git:
                    return tree_of(self._repo, at.parents[0])
                at = self._objects.commit(at.parents[0])
                with suppress(ObjectUnreadable):
                    self._copy_tree(at.tree)
                    return at.tree
        return tree_of(self._repo, self._tip())

    def _tip(self) -> str | None:
        ours = find_tip(self._repo, self._branch)
        return ours or find_tip(self._repo, self._branch, remote=True)

    def _move(self, commit: str) -> None:
        self._repo.git.references.create(HEADS + self._branch, commit, force=True)
        self.done.kept.append(commit)

    def _mark_lost(self, commit: RawCommit, why: str) -> None:
        what = self._key_of(commit.message)
        self.done.lost[commit.id] = f"{why} ({what})" if what else why

    def _copy(self, commit: RawCommit) -> None:
        self._copy_tree(commit.tree)
        self._repo.git.write(ObjectType.COMMIT, commit.raw)

    def _copy_tree(self, tree: str) -> None:
        """Copy all objects below a tree, and the tree last, so that it is complete once it exists.

        Raises ObjectUnreadable.
        """
        if tree in self._repo.git:
            return
        for oid, is_blob in self._objects.below(tree, set(self._present)):
            if oid in self._repo.git:
                self._present.add(oid)
            elif is_blob and _is_large(self._objects.repository, oid):
                self._objects.check(oid)
                target = loose_path(self._repo.path, oid)
                target.parent.mkdir(exist_ok=True)
                temporary = target.with_name(f"tmp_obj_{oid[:16]}")
                shutil.copyfile(loose_path(self._objects.repository, oid), temporary)
                if not is_whole_as(temporary, oid):
                    temporary.unlink()
                    raise ObjectUnreadable(f"{oid} is damaged")
                temporary.chmod(0o444)
                temporary.rename(target)
            else:
                self._repo.git.write(*self._objects.read(oid))
            self._present.add(oid)

    def keep_reference(self, name: str, oid: str) -> None:
        """Keep a reference of ours and its commits if they can be read; otherwise list it as lost."""
        if name in self._repo.git.references:
            return
        try:
            chain, whole = self._chain(oid)
            if not whole:
                return
            for commit in chain:
                self._copy(commit)
        except ObjectUnreadable as error:
            self.done.lost[oid] = f"{error} ({name})"
            return
        theirs = find_tip(self._repo, self._branch, remote=True)
        ours = find_tip(self._repo, self._branch)
        if name.startswith(KNOWN) and (
            ours is None
            or not contains(self._repo, ours, oid)
            or (theirs is not None and contains(self._repo, theirs, oid))
        ):
            return  # it is recorded again with the next fetch
        self._repo.git.references.create(name, oid, force=False)


def is_whole_as(path: Path, oid: str) -> bool:
    """True if a file has the content of that id."""
    folder = path.parent / f"check-{oid[:16]}" / oid[:2]
    folder.mkdir(parents=True)
    linked = folder / oid[2:]
    try:
        linked.hardlink_to(path)
        return is_whole(linked)
    finally:
        linked.unlink(missing_ok=True)
        folder.rmdir()
        folder.parent.rmdir()


def _is_large(repository: Path, oid: str) -> bool:
    try:
        return is_large(loose_path(repository, oid))
    except FileNotFoundError:
        return False
    except (OSError, ObjectBroken) as error:
        raise ObjectUnreadable(f"{oid} cannot be read ({error})") from error


def _person(commit: RawCommit, role: bytes) -> pygit2.Signature:
    """Return the author or committer of a commit. Raises ObjectUnreadable if it has none."""
    match = re.search(rb"^%s (.*) <(.*)> (\d+) ([+-])(\d\d)(\d\d)$" % role, commit.raw, re.MULTILINE)
    if match is None:
        raise ObjectUnreadable(f"{commit.id} has no {role.decode()}")
    offset = int(match[5]) * 60 + int(match[6])
    name, email = match[1].decode(errors="replace"), match[2].decode(errors="replace")
    return pygit2.Signature(name, email, int(match[3]), -offset if match[4] == b"-" else offset)


def _copy_lfs(broken: Path, repo: Repository, done: Salvaged) -> None:
    """Copy the LFS content that the remote does not have yet."""
    waiting = broken / "lfs" / "waiting"
    for mark in sorted(waiting.iterdir()) if waiting.is_dir() else ():
        inside = Path("lfs", "objects", mark.name[:2], mark.name[2:4], mark.name)
        target = repo.path / inside
        if target.exists():
            continue
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            (repo.path / "lfs" / "waiting").mkdir(parents=True, exist_ok=True)
            shutil.copyfile(broken / inside, target.with_suffix(".new"))
        except OSError as error:
            done.lost[mark.name] = f"the large file {mark.name} cannot be read ({error.strerror})"
            continue
        (repo.path / "lfs" / "waiting" / mark.name).touch()
        target.with_suffix(".new").rename(target)
