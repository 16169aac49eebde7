"""Exceptions for failed etcd calls."""

from __future__ import annotations

import pytest
from grpc import StatusCode

from mao_shared.errors import MaoError, StoreUnavailable, StoreUnknown
from mao_shared.store.etcd_channel import translate

REFUSED = "failed to connect to all addresses; last error: connect: Connection refused (111)"


def fail(code: StatusCode, details: str, *, write: bool) -> MaoError:
    return translate(code, details, endpoint="127.0.0.1:2379", write=write)


@pytest.mark.parametrize(
    ("code", "details"),
    [
        (StatusCode.UNAVAILABLE, REFUSED),
        (StatusCode.UNAVAILABLE, "DNS resolution failed for etcd:2379"),
        (StatusCode.UNAVAILABLE, "Socket closed"),
        (StatusCode.UNAVAILABLE, "etcdserver: leader changed"),
        (StatusCode.UNAVAILABLE, "etcdserver: request timed out"),
        (StatusCode.UNAVAILABLE, "etcdserver: no leader"),
        (StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded"),
        (StatusCode.CANCELLED, ""),
        (StatusCode.UNKNOWN, "Stream removed"),
        (StatusCode.INTERNAL, "Internal error from Core"),
    ],
)
def test_errors_failed_read_is_store_unavailable(code: StatusCode, details: str) -> None:
    error = fail(code, details, write=False)
    assert type(error) is StoreUnavailable
    assert error.code == "store-unavailable"
    assert "127.0.0.1:2379" in error.detail
    assert error.next


def test_errors_of_federation_etcd_name_no_node_setting_nor_grpc_text() -> None:
    error = translate(
        StatusCode.INTERNAL, "Internal error from Core", endpoint="h:1", write=False, shared=True
    )
    assert (error.code, error.detail) == (
        "federation-unavailable",
        "etcd at h:1 does not answer (the connection broke off).",
    )
    assert "MAO_ETCD_ENDPOINTS" not in str(error.next)


@pytest.mark.parametrize(
    ("code", "details"),
    [
        (StatusCode.UNAVAILABLE, "Socket closed"),
        (StatusCode.UNAVAILABLE, "etcdserver: leader changed"),
        (StatusCode.UNAVAILABLE, "etcdserver: request timed out"),
        (StatusCode.UNAVAILABLE, "etcdserver: no leader"),
        (StatusCode.UNAVAILABLE, "etcdserver: server stopped"),
        (StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded"),
        (StatusCode.CANCELLED, ""),
        (StatusCode.UNKNOWN, "Stream removed"),
    ],
)
def test_errors_unconfirmed_write_is_unknown(code: StatusCode, details: str) -> None:
    error = fail(code, details, write=True)
    assert type(error) is StoreUnknown
    assert error.next


@pytest.mark.parametrize(
    ("code", "details", "problem", "next_step"),
    [
        (StatusCode.UNAVAILABLE, REFUSED, "store-unavailable", "Start etcd"),
        (
            StatusCode.RESOURCE_EXHAUSTED,
            "etcdserver: mvcc: database space exceeded",
            "store-full",
            "etcdctl compact",
        ),
        (StatusCode.RESOURCE_EXHAUSTED, "etcdserver: too many requests", "store-overloaded", "Try again"),
        (StatusCode.NOT_FOUND, "etcdserver: requested lease not found", "lease-ended", "Try again"),
    ],
)
def test_errors_write_never_sent_is_store_unavailable(
    code: StatusCode, details: str, problem: str, next_step: str
) -> None:
    error = fail(code, details, write=True)
    assert type(error) is StoreUnavailable
    assert error.code == problem
    assert next_step in (error.next or "")
