"""Large files of a dataset that declares Git LFS: which go there, and their content when needed. Blocking."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from mao_shared.models import DatasetRef

from . import outputs, repository
from .changes import Changes
from .context import Context
from .outputs import Found, Limits
from .repository import Clone, Content, ContentMissing

T = TypeVar("T")

LARGEST_ATTRIBUTES = 1 << 20  # bytes


def limits_of(context: Context, output: DatasetRef) -> Limits:
    """The limits of what a step writes: those that its enrolment was made with."""
    return replace(context.limits, lfs_above=output.lfs_above)


def contents_of(
    clone: Clone, base: str, changes: Changes, folder: Path, limits: Limits
) -> dict[str, Content | None]:
    """What a tool changed in its folder, as changes of the tree `base`, with what LFS needs."""
    contents: dict[str, Content | None] = dict.fromkeys(changes.removed)
    active = limits.lfs_above is not None or repository.tree_uses_lfs(clone, base)
    for found in changes.written:
        if found.path == repository.ATTRIBUTES:
            _check_attributes(found, folder, active)
        contents[found.path] = _content(found, folder, limits, active)
    return contents | _attributes(clone, base, contents)


def _check_attributes(found: Found, folder: Path, active: bool) -> None:
    """Raises InvalidInput (`output-refused`): pointers count where this file says so; it is read whole."""
    if found.size > LARGEST_ATTRIBUTES:
        raise outputs.refused(found.path, f"has {found.size} bytes, the limit is {LARGEST_ATTRIBUTES}")
    if active or found.link is not None:
        return
    with outputs.open_file(folder, found) as stream:
        if b"filter=lfs" in stream.read():
            raise outputs.refused(found.path, "declares Git LFS, and the dataset's record does not")


def _content(found: Found, folder: Path, limits: Limits, active: bool) -> Content:
    if found.link is not None:
        return Content(link=found.link)
    opener = partial(outputs.open_file, folder, found)
    large = limits.goes_to_lfs(found.size) or _passes_for_pointer(found, opener, active)
    return Content(opener, found.size, found.executable, lfs=large)


def _passes_for_pointer(found: Found, opener: Callable[[], io.BufferedIOBase], active: bool) -> bool:
    """A file that looks like a pointer would be read as what it points to, so it goes to LFS itself."""
    if not active or found.size > repository.POINTER_MAX:
        return False
    with opener() as stream:
        return repository.parse_pointer(stream.read()) is not None


def _attributes(clone: Clone, base: str, contents: Mapping[str, Content | None]) -> dict[str, Content | None]:
    """`.gitattributes` as it must be for these changes; nothing when it can stay as it is."""
    add = {path for path, content in contents.items() if content is not None and content.lfs}
    text = _text(clone, base, contents)
    new = repository.with_paths(text, add, contents.keys() - add)
    if new == text:
        return {}
    data = new.encode(errors="surrogateescape")
    return {repository.ATTRIBUTES: Content(lambda: io.BytesIO(data), len(data)) if data else None}


def _text(clone: Clone, base: str, contents: Mapping[str, Content | None]) -> str:
    """The file as the tool leaves it."""
    if repository.ATTRIBUTES not in contents:
        return repository.text_at(clone, base, repository.ATTRIBUTES)
    content = contents[repository.ATTRIBUTES]
    if content is None or content.open is None:
        return ""
    with content.open() as stream:
        return stream.read().decode(errors="surrogateescape")


def with_content(context: Context, clone: Clone, commit: str, call: Callable[[], T]) -> T:
    """Makes a call that reads files of a commit; once more when content had to be fetched first."""
    try:
        return call()
    except ContentMissing:
        repository.bring_content(clone, commit, context.access)
    try:
        return call()
    except ContentMissing as missing:
        raise repository.content_missing(clone, missing) from missing
