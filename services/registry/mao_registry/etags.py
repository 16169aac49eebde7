"""ETag and If-Match: the revision of a record in etcd, quoted."""

from __future__ import annotations

from mao_shared.errors import PreconditionFailed


def etag(revision: int) -> str:
    return f'"{revision}"'


def check_match(if_match: str | None, revision: int, what: str, command: str) -> None:
    """Raises PreconditionFailed unless `if_match` is unset, `*` or lists the revision.

    `command` shows the record as it is now.
    """
    if if_match is None or if_match.strip() == "*":
        return
    if etag(revision) not in (tag.strip() for tag in if_match.split(",")):
        raise PreconditionFailed(
            f"The {what} has changed: its ETag is {etag(revision)}, If-Match named {if_match[:100]}.",
            next=f"Read it again with '{command}', then send the new ETag.",
            etag=etag(revision),
        )
