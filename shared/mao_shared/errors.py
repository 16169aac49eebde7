"""MAO's exceptions, each with the HTTP status and the code of its problem document.

MaoError
├── InvalidInput           422  the request is invalid
├── Unauthorized           401  no token, or an invalid one
│   └── UserUnknown             the federation's etcd has no such user, or no longer
├── Forbidden              403  the caller lacks permission
├── NotFound               404
├── Conflict               409  the request conflicts with the present state
│   ├── AlreadyExists
│   └── StillReferenced
├── RecordUnreadable       409  the stored record cannot be read by this version
├── PreconditionFailed     412  If-Match named another revision
├── Unavailable            503  a dependency does not answer; try again
│   ├── StoreUnavailable        etcd; nothing was written
│   │   └── FederationUnavailable   the federation's etcd
│   │       └── NodeRemoved             it has removed this node; retrying does not help
│   ├── StoreUnknown            etcd; a write timed out: read again, then decide
│   ├── EngineUnavailable       the container engine
│   ├── RemoteUnavailable       a dataset's remote
│   └── PeerUnavailable         another MAO service
├── Gone                   410  a call that no longer exists; `next` names its replacement
└── Compacted              410  the revision of a watch or page was compacted; list again
    └── StoreSwitched           the node has joined or left a federation and uses another store now
"""

from __future__ import annotations

from typing import Any, ClassVar, Self

EXIT_CODES = {401: 4, 403: 4, 404: 3, 409: 5, 412: 5, 422: 2, 503: 6}
"""Exit codes of maoctl by HTTP status; all others have exit code 1."""


class MaoError(Exception):
    """Base class of failures that a person can act on.

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
        next: str | None = None,  # noqa: A002 (name of the problem document's member)
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
    """A stored record is damaged, or was written by a newer version. `key`: its key in the store."""

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
    """The node uses another store now, so earlier revisions are invalid."""

    def __init__(self) -> None:
        super().__init__(0)
        self.detail = "The records are in another store now: this node has joined or left a federation."
