"""Large files of a dataset that declares Git LFS: which go there, and their content when needed. Blocking."""

from __future__ import annotations

import io
from collections.abc import Callable, Collection, Mapping, Set
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import mao_git
from mao_datamgmt.context import Context
from mao_git import Clone, Content, ContentMissing, Texts
from mao_shared.errors import NotFound
from mao_shared.models import DatasetRef

from . import output
from .changes import Changes
from .output import Found, Limits

T = TypeVar("T")

LARGEST_ATTRIBUTES = 32 << 20  # bytes; a line for each large file has about 80


def limits_of(context: Context, output: DatasetRef) -> Limits:
    """The limits of what a step writes: those that its enrolment was made with."""
    return replace(context.limits, lfs_above=output.lfs_above)


def contents_of(
    clone: Clone, base: str, changes: Changes, folder: Path, limits: Limits
) -> dict[str, Content | None]:
    """What a tool changed in its folder, as changes of the tree `base`.

    With the first large file, older files that look like pointers go to LFS as well: from then on whatever
    looks like one is one.
    """
    contents: dict[str, Content | None] = {path: None for path in changes.removed if path != mao_git.MARK}
    in_use = mao_git.tree_uses_lfs(clone, base)
    active = in_use or limits.lfs_above is not None
    for found in changes.written:
        if found.path == mao_git.MARK:
            continue  # a tool has no say in it
        if found.path.startswith(f"{mao_git.MARK}/"):
            raise output.refused(found.path, f"lies below {mao_git.MARK}, which MAO keeps for itself")
        if found.path == mao_git.ATTRIBUTES:
            _check_attributes(found, folder, active)
        contents[found.path] = _content(found, folder, limits, active)
    if not in_use and any(content is not None and content.lfs for content in contents.values()):
        contents = _look_alikes(clone, base) | contents
    return contents


def _look_alikes(clone: Clone, base: str) -> dict[str, Content | None]:
    """The files of a tree that look like pointers and are none, as content for LFS."""
    found: dict[str, Content | None] = {}
    for path, pointer in mao_git.pointer_paths(clone, base).items():
        if not mao_git.is_here(clone, pointer):
            entry = mao_git.entry_at(clone, base, path)
            executable = entry is not None and entry.executable
            text = mao_git.content_of_text(pointer.text())
            found[path] = replace(text, lfs=True, executable=executable)
    return found


def texts_for(clone: Clone, base: str, tree: str, contents: Mapping[str, Content | None]) -> Texts:
    """What is MAO's in a tree, where it has to change. `contents`: how `tree` differs from `base`.

    Raises InvalidInput (`output-refused`) where the tool has put something in its way.
    """
    add = {path for path, content in contents.items() if content is not None and content.lfs}
    try:
        for path in add:
            mao_git.check_line(path)
        marked = mao_git.MARK in mao_git.content_ids(clone, base, [mao_git.MARK])
        kept = marked and mao_git.MARK in mao_git.content_ids(clone, tree, [mao_git.MARK])
        if kept and not any(path.rpartition("/")[2] == mao_git.ATTRIBUTES for path in contents):
            return _with_less_or_more(clone, tree, add, contents.keys() - add)
        if not (marked or add or mao_git.tree_uses_lfs(clone, base) or mao_git.holds_content(clone)):
            return {}
        known = marked or bool(add) or mao_git.tree_uses_lfs(clone, base)
        found = mao_git.pointer_paths(clone, tree)
        pointers = {path for path, each in found.items() if known or mao_git.is_here(clone, each)}
        return _with_just(clone, tree, pointers)
    except mao_git.NotDeclared as error:
        raise output.refused(error.path, str(error)) from error


def _with_less_or_more(clone: Clone, tree: str, add: Set[str], drop: Set[str]) -> Texts:
    """As nobody but MAO has changed the attributes since `base`, what it wrote there still holds."""
    texts = mao_git.attributes_for(clone, tree, add, drop, whole=False)
    if texts.get(mao_git.ATTRIBUTES, b"") is None:  # the last line went: was it the last pointer?
        return _with_just(clone, tree, mao_git.pointer_paths(clone, tree).keys())
    return texts


def _with_just(clone: Clone, tree: str, pointers: Collection[str]) -> Texts:
    texts = mao_git.attributes_for(clone, tree, pointers, whole=True)
    return texts | mao_git.mark_for(clone, tree, wanted=bool(pointers))


def _check_attributes(found: Found, folder: Path, active: bool) -> None:
    """Raises InvalidInput (`output-refused`): pointers count where this file says so; it is read whole."""
    if found.size > LARGEST_ATTRIBUTES:
        raise output.refused(found.path, f"has {found.size} bytes, the limit is {LARGEST_ATTRIBUTES}")
    if active or found.link is not None:
        return
    with output.open_file(folder, found) as stream:
        if b"filter=lfs" in stream.read():
            raise output.refused(found.path, "declares Git LFS, and the dataset's record does not")


def _content(found: Found, folder: Path, limits: Limits, active: bool) -> Content:
    if found.link is not None:
        return Content(link=found.link)
    opener = partial(output.open_file, folder, found)
    large = limits.goes_to_lfs(found.size) or _passes_for_pointer(found, opener, active)
    return Content(opener, found.size, found.executable, lfs=large)


def _passes_for_pointer(found: Found, opener: Callable[[], io.BufferedIOBase], active: bool) -> bool:
    """A file that looks like a pointer would be read as what it points to, so it goes to LFS itself."""
    if not active or not mao_git.may_be_pointer(found.size):
        return False
    with opener() as stream:
        return mao_git.parse_pointer(stream.read()) is not None


def with_content(context: Context, clone: Clone, commit: str, call: Callable[[], T]) -> T:
    """Makes a call that reads files of a commit; once more when content had to be fetched first.

    That the remote lacks some content is told only where it is what the call reads.
    """
    try:
        return call()
    except ContentMissing:
        with suppress(NotFound):
            mao_git.bring_content(clone, commit, context.access)
    try:
        return call()
    except ContentMissing as missing:
        raise mao_git.content_missing(clone, missing) from missing
