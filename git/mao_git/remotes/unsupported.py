"""Repositories that cannot be a dataset's remote: detects their kind, and says what to do.

libgit2 (on this machine) and git (over SSH) word the same fault differently; the patterns know both.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from mao_shared.errors import InvalidInput

CODE = "remote-unsupported"
SHALLOW = "the repository is shallow"
_CONVERT = (
    "Give it to MAO in git's usual form. With the git that made it: git clone --mirror {url} other, then "
    "push its branches to a new repository (git init --bare --ref-format=files), and name that one."
)
_PROMISOR = re.compile(r"promisor\s*=\s*true|partialclone", re.IGNORECASE)
_PARTIAL = (
    "is a partial clone (made with --filter) that lacks some of its content",
    "Complete it: git -C {place} fetch --refetch --no-filter. Or use the one that it was cloned from.",
)


@dataclass(frozen=True, slots=True)
class _Kind:
    """A kind of repository. `pattern` finds it in a message of libgit2 or git; `what` may contain the
    pattern's group {word}, `next` {url} and {place}.
    """

    pattern: re.Pattern[str]
    what: str
    next: str


def _kind(pattern: str, what: str, next_step: str) -> _Kind:
    return _Kind(re.compile(pattern, re.IGNORECASE), what, next_step)


_KINDS = (
    _kind(
        # "invalid packet line": libgit2 does not know the lines by which git over SSH says where a shallow
        # repository ends.
        rf"{SHALLOW}|invalid packet line|shallow update not allowed|source repository is shallow",
        "is a shallow clone (made with --depth): it lacks older commits, so it cannot hold a dataset",
        "Complete it: git -C {place} fetch --unshallow. Or use the repository that it was cloned from.",
    ),
    _kind(
        r"(?:unknown|unsupported)\D*object[- ]?format '?(?P<word>\w+)|mismatched algorithms"
        r"|extensions\.objectformat",
        "uses another hash ({word}) than SHA-1, the only one that MAO reads",
        "Make one with SHA-1 (git init --bare --object-format=sha1) and copy the content into it; the "
        "history cannot be carried over. 'maoctl dataset init NAME' makes one on this node.",
    ),
    _kind(
        r"ref-?storage|reftable",
        "keeps its branches in git's reftable format, which is not read here",
        "Convert it with git 2.46 or newer: git -C {place} refs migrate --ref-format=files",
    ),
    _kind(
        r"(?:unsupported|unknown)(?: repository)? extensions?(?: name)?(?: found)?:?\s*(?:extensions\.)?"
        r"(?P<word>[\w.-]+)",
        "uses the extension {word} of git's format, which is not known here",
        _CONVERT,
    ),
    _kind(
        r"unsupported repository version (?P<word>\d+)"
        r"|expected git repo version <= \d+, found (?P<other>\d+)",
        "has version {word} of git's repository format, which is newer than this version supports",
        _CONVERT,
    ),
    _kind(
        r"dubious ownership",
        "belongs to another user of its server than the one that this node logs in as, so git refuses to "
        "open it",
        "On the server: chown -R USER {place}, or as that user: git config --global --add safe.directory "
        "{place}",
    ),
    _kind(
        r"invalid gitfile format",
        "is a file, not a repository (perhaps a bundle)",
        "Make a repository of a bundle: git clone --mirror FILE data.git. Then use that folder.",
    ),
    _kind(
        r"failed to parse config|bad config (?:line|value|file|numeric)",
        "has a configuration that git cannot read",
        "Fix it: git config --file {place}/config --list names the line.",
    ),
    _kind(
        r"bad packet length|invalid hex digit in length|(?:bad|invalid) line length|protocol error: bad"
        r"|invalid content-type",
        "does not answer like git: other output comes first, such as that of a login script or a web page",
        "Try: ssh USER@HOST true; it must print nothing (see ~/.bashrc on the server). Or correct the URL.",
    ),
)


def unsupported_error(message: str, url: str, path: Path | None = None) -> InvalidInput | None:
    """Return the error for an unsupported repository, by the message of its failure; None for other failures.

    `path`: its path on this machine, if it is there.
    """
    text = message.replace(str(path or _server_path(url)), "")  # a folder may have any name
    for kind in _KINDS:
        if match := kind.pattern.search(text):
            words = [word for word in match.groupdict().values() if word]
            return _error(url, path, kind.what.replace("{word}", words[0] if words else "another"), kind.next)
    lacks_object = any(words in text for words in ("object not found", "no match for id", "missing"))
    if path is not None and lacks_object and _is_partial(path):
        return _error(url, path, *_PARTIAL)
    return None


def _error(url: str, path: Path | None, what: str, next_step: str) -> InvalidInput:
    place = str(path) if path is not None else _server_path(url)
    return InvalidInput(
        f"The repository {url} {what}.",
        code=CODE,
        next=next_step.format(url=quote(url), place=quote(place)),
        remote=url,
    )


def _server_path(url: str) -> str:
    """Return the folder on the server, as far as the URL names one."""
    _, scheme, rest = url.partition("://")
    return "/" + rest.partition("/")[2] if scheme else url.partition(":")[2] or url


def _is_partial(path: Path) -> bool:
    """True if git would fetch missing objects from another repository, which libgit2 does not."""
    for config in (path / "config", path / ".git" / "config"):
        try:
            if _PROMISOR.search(config.read_text(errors="replace")):
                return True
        except OSError:
            continue
    return False


def explain_non_repository(path: Path) -> tuple[str, str]:
    """Return what is at a path that is not a repository, and the next step; empty strings if unknown."""
    try:
        if path.is_file():
            with path.open("rb") as file:
                is_bundle = file.read(16).startswith((b"# v2 git bundle", b"# v3 git bundle"))
            if is_bundle:
                return (
                    "it is a bundle, a file with commits",
                    f"Make a repository of it: git clone --mirror {quote(str(path))} data.git .",
                )
            return "it is a file", "Give a repository's folder."
        if path.is_dir() and not any(path.iterdir()):
            return (
                "it is an empty folder",
                "If a file system is to be mounted there, mount it. For a new repository: "
                f"git init --bare {quote(str(path))} .",
            )
    except OSError:
        return "", ""
    return "", ""
