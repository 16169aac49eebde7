"""Services behind the gateway admit programs of the node, not web pages."""

from __future__ import annotations

import pytest
from starlette.datastructures import Headers

from mao_shared.web.callers import web_page_refusal

OWN = {"host": "127.0.0.1:8082"}


def refusal(sent: dict[str, str], method: str = "POST", path: str = "/pipeline/run") -> str | None:
    error = web_page_refusal(method, path, Headers(sent))
    return error.code if error else None


@pytest.mark.parametrize(
    ("host", "code"),
    [
        ("127.0.0.1:8082", None),
        ("localhost:8082", None),
        ("scheduler:8080", None),  # the container's name under compose
        ("10.0.0.7:8082", None),
        ("[::1]:8082", None),
        ("0.0.0.0:8082", None),
        ("evil.example:8082", "host-not-allowed"),  # rebound to loopback
        ("localhost.evil.example", "host-not-allowed"),
        ("127.0.0.1.evil.example", "host-not-allowed"),
        ("[::1", "host-not-allowed"),
        ("", "host-not-allowed"),
    ],
)
def test_callers_host(host: str, code: str | None) -> None:
    assert refusal({"host": host}) == code


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"origin": "http://127.0.0.1:8082"}, None),  # its own API page
        ({"origin": "http://127.0.0.1:3000"}, "origin-not-allowed"),
        ({"origin": "https://evil.example"}, "origin-not-allowed"),
        ({"origin": "null"}, "origin-not-allowed"),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}, "cross-site"),
        ({"sec-fetch-site": "same-origin", "sec-fetch-mode": "cors"}, None),
    ],
)
def test_callers_what_a_browser_says(headers: dict[str, str], code: str | None) -> None:
    assert refusal(OWN | headers) == code


def test_callers_link_to_an_api_page_may_be_followed() -> None:
    headers = OWN | {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert refusal(headers, "GET", "/docs") is None
    assert refusal(headers, "POST", "/docs") == "cross-site"


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
def test_callers_health_is_told_by_any_name(path: str) -> None:
    assert refusal({"host": "node.lab.example"}, "GET", path) is None
