"""Which names a dataset may hold: one rule for what a tool writes and for what a remote has. Pure."""

from __future__ import annotations

MAX_DEPTH = 100  # folders in folders
PATH_MAX = 4096  # bytes of a path on Linux, with the byte that ends it
_GIT = frozenset({".git", "git~1"})
# HFS+ takes a name with these characters for the same name without them.
IGNORED = dict.fromkeys([*range(0x200C, 0x2010), *range(0x202A, 0x202F), *range(0x206A, 0x2070), 0xFEFF])


def leads_out(path: str) -> bool:
    """Whether a path of a tree could lead out of the folder, or the archive, that it is put into.

    A backslash is a character like any other here, and parts names on Windows: a path that has some must lead
    nowhere in either reading.
    """
    return any(name in ("", ".", "..") or passes_for_git(name) for name in path.split("/")) or (
        "\\" in path and any(_is_up_on_windows(name) for name in path.replace("\\", "/").split("/"))
    )


def _is_up_on_windows(name: str) -> bool:
    """Whether a name means the folder above, or git's own; Windows takes no dots and blanks at an end."""
    return (name.startswith("..") and not name.rstrip(". ")) or passes_for_git(name)


def path_fault(path: str) -> str | None:
    """Why a path of a tree cannot be handed on as it is; None when it can."""
    if leads_out(path):
        return "its name could lead out of a folder"
    if path.count("/") > MAX_DEPTH:
        return f"it lies more than {MAX_DEPTH} folders deep"
    try:
        return "its name is too long" if len(path.encode()) > PATH_MAX else None
    except UnicodeEncodeError:
        return "its name is not UTF-8"


def shown(path: str) -> str:
    """A path for people and for JSON: bytes that are no UTF-8 as escapes."""
    return path.encode(errors="surrogateescape").decode(errors="backslashreplace")


def passes_for_git(name: str) -> bool:
    """Whether the name is `.git` or what some file system takes for it."""
    if name.isascii() and name[:1] not in (".", "g", "G"):
        return False
    return name.lower().translate(IGNORED).partition(":")[0].rstrip(". ") in _GIT
