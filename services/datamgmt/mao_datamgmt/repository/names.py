"""Which names a dataset may hold: one rule for what a tool writes and for what a remote has. Pure."""

from __future__ import annotations

MAX_DEPTH = 100  # folders in folders
_GIT = frozenset({".git", "git~1"})
# HFS+ takes a name with these characters for the same name without them.
IGNORED = dict.fromkeys([*range(0x200C, 0x2010), *range(0x202A, 0x202F), *range(0x206A, 0x2070), 0xFEFF])


def leads_out(path: str) -> bool:
    """Whether a path of a tree could lead out of the folder, or the archive, that it is put into."""
    return "\\" in path or any(name in ("", ".", "..") or passes_for_git(name) for name in path.split("/"))


def passes_for_git(name: str) -> bool:
    """Whether the name is `.git` or what some file system takes for it."""
    if name.isascii() and name[:1] not in (".", "g", "G"):
        return False
    return name.lower().translate(IGNORED).partition(":")[0].rstrip(". ") in _GIT
