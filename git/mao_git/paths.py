r"""The names and links that a dataset may contain, the same for the output of tools and for remotes.

A link is resolved as a kernel does it, name by name and through the other links of the same tree: `l -> .`
makes `x -> l/l/../../etc/hostname` lead out, though its text does not. It is also judged as it is written
(for programs that normalise paths without resolving links), and as other file systems read it, which ignore
case, or separate names by `\`.
"""

from __future__ import annotations

import re
import unicodedata
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from pygit2 import Oid

from mao_shared.errors import InvalidInput

from .objects import loose_content, raw_entries, top_tree
from .repository import Repository

MAX_DEPTH = 100  # of nested folders
PATH_MAX = 4096  # bytes of a path on Linux, with the byte that ends it
_GIT = frozenset({".git", "git~1"})
# HFS+ ignores these characters in names.
IGNORED = dict.fromkeys([*range(0x200C, 0x2010), *range(0x202A, 0x202F), *range(0x206A, 0x2070), 0xFEFF])
MAX_LINKS = 500_000  # of one tree; a small pack can expand to more
_DRIVE = re.compile(r"[A-Za-z]:")
_MAX_CACHED = 1 << 15  # folders that are known to have no links below
_MAX_SHOWN = 200  # characters of a path in a message


def leads_out(path: str) -> bool:
    """True if a path of a tree could lead out of the folder or archive that it is put into.

    A backslash is an ordinary character here, and separates names on Windows: a path must be safe in both
    readings.
    """
    return any(name in ("", ".", "..") or is_git_name(name) for name in path.split("/")) or (
        "\\" in path  # Windows ignores trailing dots and blanks
        and any(
            (name.startswith("..") and not name.rstrip(". ")) or is_git_name(name)
            for name in path.replace("\\", "/").split("/")
        )
    )


def path_fault(path: str) -> str | None:
    """Return why a path of a tree cannot be put into an archive or a crate; None if it can."""
    if leads_out(path):
        return "its name could lead out of a folder"
    if path.count("/") > MAX_DEPTH:
        return f"it lies more than {MAX_DEPTH} folders deep"
    try:
        return "its name is too long" if len(path.encode()) > PATH_MAX else None
    except UnicodeEncodeError:
        return "its name is not UTF-8"


def printable(path: str) -> str:
    """Return a path for display and JSON, with bytes that are not UTF-8 as escapes."""
    return path.encode(errors="surrogateescape").decode(errors="backslashreplace")


def is_git_name(name: str) -> bool:
    """True if the name is `.git`, or a file system treats it as `.git`."""
    if name.isascii() and name[:1] not in (".", "g", "G"):
        return False
    return name.lower().translate(IGNORED).partition(":")[0].rstrip(". ") in _GIT


Names = Callable[[str], list[str]]


def escaping_links(links: Mapping[str, str]) -> dict[str, str]:
    """Return why some of a tree's links (path → target) lead out of it, or to git's own files. Pure.

    Every path that is not a link counts as a folder, even if it does not exist yet. A loop leads nowhere
    and is allowed. Work is proportional to the length of all targets.
    """
    found = {path: why for path, target in links.items() if (why := _target_fault(target)) is not None}
    unsound = list(found)
    sound = {path: target for path, target in links.items() if path not in found}
    latest_first = dict(reversed(sound.items()))
    readings: list[tuple[Mapping[str, str], Names]] = [
        (sound, _exact),
        (sound, _foreign),
        (latest_first, _foreign),
    ]
    for links_there, names in readings:
        tree = _Tree(names)
        for path, target in links_there.items():
            tree.add(path, target)
        for path in unsound:
            tree.add(path, links[path], "which leads out")
        for path, target in sound.items():
            where = _lexical_escape(target, path, names) or tree.escape(path)
            if where is not None and path not in found:
                found[path] = f"is a link to {target}, {where}"
    return {path: found[path] for path in links if path in found}


def _target_fault(target: str) -> str | None:
    """Return why a target is refused by its text alone."""
    if not target or not target.isprintable():
        return "is a link with an unreadable target"
    if len(target.encode()) >= PATH_MAX:
        return f"is a link to {target[:80]}…, longer than a path can be"
    if target.startswith(("/", "\\")) or _DRIVE.match(target):
        return f"is a link to {target}, an absolute path"
    return None


def _exact(path: str) -> list[str]:
    return [name for name in path.split("/") if name not in ("", ".")]


def _foreign(path: str) -> list[str]:
    """Split a path as Windows and macOS do: case folded, composed, and without what they strip."""
    names = []
    for name in path.replace("\\", "/").split("/"):
        plain = unicodedata.normalize("NFC", name.translate(IGNORED)).casefold()
        kept = plain.partition(":")[0].rstrip(". ") or plain
        if kept.strip(". ") == "" and len(kept.strip(" ")) > 1:
            kept = ".."  # as some systems read '.. ' and '...'
        if kept.strip(" ") not in ("", "."):
            names.append(kept)
    return names


def _lexical_escape(target: str, path: str, names: Names) -> str | None:
    """Return why a target leads out when no link is followed."""
    depth = len(names(path)) - 1
    for name in names(target):
        if is_git_name(name):
            return "which leads into a git directory"
        depth += -1 if name == ".." else 1
        if depth < 0:
            return "which is outside the folder"
    return None


@dataclass(eq=False, slots=True)
class _TreeNode:
    """A node of the tree; the top has no `parent`."""

    parent: _TreeNode | None
    inside: dict[str, _TreeNode] = field(default_factory=dict)
    path: str | None = None  # of a link
    target: str = ""
    answer: _TreeNode | str | None = (
        None  # where a link leads, or why that is outside; None: not known, or a loop
    )
    state: int = 0  # of a link: 0 new, 1 being followed, 2 answered


class _Tree:
    """The links of a tree, by one way to split paths into names."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._top = _TreeNode(None)
        self._links: dict[str, _TreeNode] = {}

    def add(self, path: str, target: str, answer: str | None = None) -> None:
        """Add a link; of several with the same name in this reading, the first counts for all.

        `answer`: why it leads out, if known already.
        """
        place = self._top
        for name in self._names(path):
            place = place.inside.setdefault(name, _TreeNode(place))
        if place.path is None and place is not self._top:
            place.path, place.target = path, target
            place.answer, place.state = answer, 0 if answer is None else 2
        self._links[path] = place

    def escape(self, path: str) -> str | None:
        """Return why following a link leaves the tree; None if it does not."""
        link = self._links[path]
        if link.state == 0:
            self._follow(link)
        return link.answer if isinstance(link.answer, str) else None

    def _follow(self, first: _TreeNode) -> None:
        first.state = 1
        todo = [(first, first.parent, self._names(first.target)[::-1])]
        while todo:
            link, here, rest = todo.pop()
            answer = self._walk(link, here, rest, todo)
            if answer is not _FOLLOWS:
                link.state, link.answer = 2, answer

    def _walk(
        self,
        link: _TreeNode,
        here: _TreeNode | None,
        rest: list[str],
        todo: list[tuple[_TreeNode, _TreeNode | None, list[str]]],
    ) -> _TreeNode | str | None:
        """Return the target of a link; `_FOLLOWS` if another link on the way has to be followed first."""
        while rest and here is not None:
            name = rest.pop()
            if is_git_name(name):
                return "which leads into a git directory"
            if name == "..":
                if here.parent is None:
                    return f"which is outside the folder: it leads to {'/'.join(['..', *reversed(rest)])}"
                here = here.parent
                continue
            there = here.inside.get(name) or _TreeNode(here)
            if there.path is None:
                here = there
            elif there.state == 0:
                there.state = 1
                todo.append((link, here, [*rest, name]))
                todo.append((there, there.parent, self._names(there.target)[::-1]))
                return _FOLLOWS
            elif isinstance(there.answer, str):
                return f"which leads out through the link {there.path} to {there.target}"
            else:
                here = there.answer  # None: a loop, or one that is being followed and so is a loop
        return here


_FOLLOWS = _TreeNode(None)

# links of trees in a clone

_without_links: OrderedDict[bytes, bool] = OrderedDict()


def list_links(repo: Repository, tree: str) -> dict[str, str]:
    """Return path → target of all links in a tree (or commit), in git's order.

    Folders without links below are cached by their id, so that after the first call only changed folders are
    read. Raises InvalidInput (`dataset-unsafe`) for more than `MAX_LINKS` links.
    """
    found: dict[str, str] = {}
    _collect(repo, bytes(top_tree(repo, tree).id.raw), "", 0, found)
    return found


def _collect(repo: Repository, tree: bytes, inside: str, depth: int, found: dict[str, str]) -> bool:
    """Collect the links of a folder and below; True if there are any."""
    if depth > MAX_DEPTH + 1 or tree in _without_links:
        return False  # deeper folders are refused or left out for that
    raw = _raw(repo, tree)
    links = False
    for mode, name, oid in raw_entries(raw) if b"120000 " in raw or b"40000 " in raw else ():
        if mode not in (b"120000", b"40000", b"040000"):
            continue
        path = inside + name.decode(errors="surrogateescape")
        if mode == b"120000":
            links = True
            found[path] = _target(repo, oid)
            if len(found) > MAX_LINKS:
                raise InvalidInput(
                    f"The dataset has more than {MAX_LINKS} links.",
                    code="dataset-unsafe",
                    next="Find who pushed them with 'git log --all', and remove them from the branch.",
                )
        elif _collect(repo, oid, path + "/", depth + 1, found):
            links = True
    if not links:
        _without_links[tree] = True
        while len(_without_links) > _MAX_CACHED:
            _without_links.pop(next(iter(_without_links)), None)
    return links


def _raw(repo: Repository, oid: bytes) -> bytes:
    loose = loose_content(repo.path, oid.hex())
    return loose if loose is not None else bytes(repo.git[Oid(raw=oid)].read_raw())


def _target(repo: Repository, oid: bytes) -> str:
    if int(repo.git.odb.read_header(Oid(raw=oid))[1]) >= PATH_MAX:
        return "\0"  # no path is so long: unreadable
    return _raw(repo, oid).decode(errors="surrogateescape")


def new_escaping_links(repo: Repository, tree: str, before: Sequence[str]) -> dict[str, str]:
    """Return why some links lead out of a merged tree that did not lead out of the trees merged."""
    links = list_links(repo, tree)
    wrong = escaping_links(links) if links else {}
    for source in before if wrong else ():
        had = list_links(repo, source)
        for path in escaping_links(had):
            if links.get(path) == had[path]:
                wrong.pop(path, None)
    return wrong


def unsafe_name(path: str, why: str) -> InvalidInput:
    """Return the error for a tree with an unusable name; MAO publishes no such tree."""
    name = printable(path if len(path) <= _MAX_SHOWN else path[:_MAX_SHOWN] + "…")
    return InvalidInput(
        f"The dataset contains the name {name!r}, which {why}.",
        code="dataset-unsafe",
        next="Find who pushed it with 'git log --all', and remove it from the branch.",
    )
