"""What an error of the etcd client means for the caller of the store; no I/O.

etcd tells conditions apart by message where one gRPC status stands for several.
"""

from __future__ import annotations

from grpc import StatusCode

from mao_shared.errors import Conflict, FederationUnavailable, MaoError, StoreUnavailable, StoreUnknown

from .limits import lease_ended

_NEVER_SENT = (
    "failed to connect to all addresses",
    "dns resolution failed",
    "name resolution",
    "rpc not supported for learner",  # it was sent, but a learner passes nothing on
)
_UNHEALTHY = "etcdserver: unhealthy cluster"  # its guard against losing the quorum by a change of members
_UNTRUSTED = "CERTIFICATE_VERIFY_FAILED"
_REFUSALS = frozenset(
    {
        StatusCode.FAILED_PRECONDITION,
        StatusCode.NOT_FOUND,
        StatusCode.ALREADY_EXISTS,
        StatusCode.INVALID_ARGUMENT,
    }
)
_LEASE_GONE = "requested lease not found"
_TORN = {"Internal error from Core": "the connection broke off"}  # how gRPC says so at times
_COMPACTED = "required revision has been compacted"
_FUTURE = "required revision is a future revision"


def never_sent(code: StatusCode, details: str) -> bool:
    """Whether it is certain that the request has not left this process."""
    return code is StatusCode.UNAVAILABLE and any(text in details.lower() for text in _NEVER_SENT)


def is_outage(code: StatusCode, details: str) -> bool:
    """Whether another endpoint may do better."""
    return code in (StatusCode.UNAVAILABLE, StatusCode.DEADLINE_EXCEEDED) or details in _TORN


def is_compacted(details: str) -> bool:
    return _COMPACTED in details


def is_future(details: str) -> bool:
    return _FUTURE in details


def is_lease_gone(details: str) -> bool:
    return _LEASE_GONE in details


def translate(
    code: StatusCode, details: str, *, endpoint: str, write: bool, shared: bool = False
) -> MaoError:
    """The exception for a failed call; a write counts as unknown unless it surely was not applied.

    `shared`: it is a federation's etcd, not the one in this node's settings.
    """
    if is_lease_gone(details):
        return lease_ended()
    if code is StatusCode.RESOURCE_EXHAUSTED:
        return _refused(details, endpoint)
    if _UNTRUSTED in details:
        return StoreUnavailable(
            f"What answers at {endpoint} has no certificate of the federation's authority for that address.",
            code="store-not-trusted",
            next="Compare the federation's endpoints with 'maoctl federation list'; another program may "
            "listen there, or the federation was made anew.",
        )
    if _UNHEALTHY in details:
        return StoreUnavailable(
            f"etcd at {endpoint} changes no members now: not all have been connected for 5 seconds.",
            code="etcd-unhealthy",
            next="Look with 'maoctl federation show' which member is away; try again when all are back.",
        )
    if code in _REFUSALS:
        return Conflict(f"etcd at {endpoint} refused: {details}.", code="etcd-refused")
    if write and not never_sent(code, details):
        return StoreUnknown(
            f"etcd at {endpoint} did not confirm a write ({_reason(code, details)}); "
            "it may have been applied or not.",
            next="Look at the record again before repeating the command.",
        )
    if shared:
        return StoreUnavailable(
            f"etcd at {endpoint} does not answer ({_reason(code, details)}).",
            code=FEDERATION_AWAY,
            next="See on its core nodes whether they run ('maoctl federation list' there), and that this "
            "machine reaches that port; then try again.",
        )
    return StoreUnavailable(
        f"etcd at {endpoint} does not answer ({_reason(code, details)}).",
        next="Start etcd or correct MAO_ETCD_ENDPOINTS; 'maoctl doctor' tells more.",
    )


FEDERATION_AWAY = FederationUnavailable.default_code


def _refused(details: str, endpoint: str) -> StoreUnavailable:
    if "database space exceeded" in details:
        return StoreUnavailable(
            f"etcd at {endpoint} is full and takes no writes ({details}).",
            code="store-full",
            next="Free space with 'etcdctl compact', 'etcdctl defrag' and 'etcdctl alarm disarm', "
            "or start etcd with a larger --quota-backend-bytes.",
        )
    return StoreUnavailable(
        f"etcd at {endpoint} is overloaded ({details}); nothing was written.",
        code="store-overloaded",
        next="Try again in a moment; look at etcd's disk latency when it stays like this.",
    )


def _reason(code: StatusCode, details: str) -> str:
    if never_sent(code, details):
        return "no connection"
    if code is StatusCode.DEADLINE_EXCEEDED:
        return "not in time"
    if details in _TORN:
        return _TORN[details]
    return f"{code.name.lower().replace('_', ' ')}: {details}" if details else code.name.lower()
