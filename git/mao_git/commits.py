"""Making commits, signed where this node has a key for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pygit2

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
