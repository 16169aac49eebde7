"""Accepted forms of endpoints."""

from __future__ import annotations

import pytest

from mao_shared.store.endpoints import parse_endpoints


@pytest.mark.parametrize(
    ("text", "addresses"),
    [
        ("127.0.0.1:2379", ["127.0.0.1:2379"]),
        ("etcd", ["etcd:2379"]),
        ("http://etcd-1.example:12379/", ["etcd-1.example:12379"]),
        ("a:1, b:2,,c", ["a:1", "b:2", "c:2379"]),
        ("[::1]:2379", ["[::1]:2379"]),
        ("unix:///run/mao/localhost:2379", ["unix:///run/mao/localhost:2379"]),
        ("a:1,unix:///b/c", ["a:1", "unix:///b/c"]),
    ],
)
def test_endpoints_are_host_and_port(text: str, addresses: list[str]) -> None:
    assert parse_endpoints(text) == addresses


@pytest.mark.parametrize(
    "text",
    [
        "",
        " , ",
        "https://etcd:2379",
        "etcd:port",
        "a b",
        "etcd:123456",
        "::1",
        "unix:run/x",
        "unix://x",
        "unix:///a b",
    ],
)
def test_endpoints_what_is_no_endpoint_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="endpoint"):
        parse_endpoints(text)
