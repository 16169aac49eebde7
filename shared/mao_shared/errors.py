"""The exceptions of MAO, each with the HTTP status and the problem code that it becomes.

MaoError
├── InvalidInput           422  what the caller sent cannot be used
├── Unauthorized           401  no token, or an invalid one
│   └── UserUnknown             the federation's etcd knows no such user, or no longer
├── Forbidden              403  the caller may not do this
├── NotFound               404
├── Conflict               409  it conflicts with what exists
│   ├── AlreadyExists
│   └── StillReferenced
├── RecordUnreadable       409  the stored record cannot be read by this version
├── PreconditionFailed     412  If-Match named another revision
├── Unavailable            503  something needed does not answer; try again
│   ├── StoreUnavailable        etcd; nothing was written
│   │   └── FederationUnavailable   the federation's etcd, which others run
│   │       └── NodeRemoved             it has removed this node: waiting does not help
│   ├── StoreUnknown            etcd; a write timed out: read again, then decide
│   ├── EngineUnavailable       the container engine
│   ├── RemoteUnavailable       a dataset's remote
│   └── PeerUnavailable         another MAO service
├── Gone                   410  a call that no longer exists; `next` names its replacement
└── Compacted              410  a watch or a page starts below what etcd still has: list again
    └── StoreSwitched           the node has joined or left a federation: another store holds the records now
"""

from __future__ import annotations

from typing import Any, ClassVar, Self

EXIT_CODES = {401: 4, 403: 4, 404: 3, 409: 5, 412: 5, 422: 2, 503: 6}
"""HTTP status → exit code of a program that maoctl calls, as its own; of all others 1."""


class MaoError(Exception):
    """Something failed for a reason that a person can act on.

    Args:
        detail: what failed and why, in one or two sentences.
        code: stable kebab-case problem code; the class has a default.
        next: the next command or step for the person who reads this.
        facts: further members of the problem document (must be JSON-serialisable).
    """

    status: ClassVar[int] = 500
    default_code: ClassVar[str] = "internal"
    retry_after: ClassVar[int | None] = None  # seconds

    def __init__(
        self,
        detail: str,
        *,
        code: str | None = None,
        next: str | None = None,  # noqa: A002 (the problem document's word)
        **facts: Any,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code or self.default_code
        self.next = next
        self.facts = facts


class InvalidInput(MaoError):
    status = 422
    default_code = "invalid-input"


class Unauthorized(MaoError):
    status = 401
    default_code = "unauthorized"


class UserUnknown(Unauthorized):
    default_code = "store-identity-refused"


class Forbidden(MaoError):
    status = 403
    default_code = "forbidden"


class NotFound(MaoError):
    status = 404
    default_code = "not-found"


class Conflict(MaoError):
    status = 409
    default_code = "conflict"


class AlreadyExists(Conflict):
    default_code = "already-exists"


class StillReferenced(Conflict):
    default_code = "still-referenced"


class RecordUnreadable(MaoError):
    """A stored record that a newer version has written, or that is damaged. `key` is the store's."""

    status = 409
    default_code = "record-unreadable"

    @classmethod
    def of(cls, key: str, why: str, next_step: str) -> Self:
        return cls(f"The record {key} cannot be read: {why}.", next=next_step, key=key, why=why)

    @property
    def key(self) -> str:
        return str(self.facts.get("key", ""))

    @property
    def why(self) -> str:
        return str(self.facts.get("why", self.detail))


class PreconditionFailed(MaoError):
    status = 412
    default_code = "precondition-failed"


class Unavailable(MaoError):
    status = 503
    default_code = "unavailable"
    retry_after: ClassVar[int | None] = 2


class StoreUnavailable(Unavailable):
    default_code = "store-unavailable"


class FederationUnavailable(StoreUnavailable):
    default_code = "federation-unavailable"
    retry_after: ClassVar[int | None] = 5


class NodeRemoved(FederationUnavailable):
    default_code = "node-removed"
    retry_after = None


class StoreUnknown(Unavailable):
    default_code = "store-unknown"


class EngineUnavailable(Unavailable):
    default_code = "engine-unavailable"


class RemoteUnavailable(Unavailable):
    default_code = "remote-unavailable"


class PeerUnavailable(Unavailable):
    default_code = "service-unavailable"


class Gone(MaoError):
    status = 410
    default_code = "gone"


class Compacted(MaoError):
    status = 410
    default_code = "compacted"

    def __init__(self, revision: int) -> None:
        super().__init__(
            f"The store has dropped its history below or at revision {revision}.",
            next="List again from the first page, without 'cursor'.",
            revision=revision,
        )
        self.revision = revision


class StoreSwitched(Compacted):
    """Revisions of before mean nothing any more."""

    def __init__(self) -> None:
        super().__init__(0)
        self.detail = "The records are in another store now: this node has joined or left a federation."
