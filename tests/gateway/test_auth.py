"""Admission of requests, as a table."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path

import pytest
from starlette.datastructures import Headers

from mao_gateway.auth import (
    AccessPolicy,
    check_request,
    new_token,
    policy_from,
    read_tokens,
    token_digest,
    token_owner,
)
from mao_gateway.settings import GatewaySettings
from mao_shared.errors import InvalidInput
from mao_shared.web.callers import host_name
from tests.support.users import NOBODY, as_user, common_folder, needs_root, python_for

LOCAL = AccessPolicy(hosts=frozenset({"node.lab.example"}))
OPEN = AccessPolicy(
    hosts=frozenset({"node.lab.example"}), tokens={"ada": token_digest("t0k"), "bob": token_digest("b0b")}
)
OWN = "http://localhost:8080"


def refusal(policy: AccessPolicy, sent: dict[str, str], method: str = "POST") -> str | None:
    error = check_request(policy, method, Headers(sent))
    return error.code if error else None


@pytest.mark.parametrize(
    ("host", "code"),
    [
        ("localhost:8080", None),
        ("LOCALHOST", None),
        ("localhost.:8080", None),
        ("127.0.0.1:8080", None),
        ("127.1.2.3", None),
        ("[::1]:8080", None),
        ("0.0.0.0:8080", None),  # the seed's own curl lines
        ("node.lab.example", None),
        ("evil.example", "host-not-allowed"),
        ("localhost.evil.example", "host-not-allowed"),
        ("evil.example:8080", "host-not-allowed"),
        ("192.168.1.5:8080", "host-not-allowed"),
        ("user@localhost", None),
        ("localhost@evil.example", "host-not-allowed"),
        ("[::1", "host-not-allowed"),
        ("", "host-not-allowed"),
    ],
)
def test_check_host_on_loopback(host: str, code: str | None) -> None:
    assert refusal(LOCAL, {"host": host}) == code


@pytest.mark.parametrize(
    ("host", "port"), [("evil.example", 18100), ("evil.example:9000", 9000), ("x:y", 18100)]
)
def test_check_host_hint_names_reached_port(host: str, port: int) -> None:
    refused = check_request(AccessPolicy(port=18100), "GET", Headers({"host": host}))
    assert refused is not None
    assert f"http://127.0.0.1:{port}," in str(refused.next)


def test_check_host_two_or_none() -> None:
    assert refusal(LOCAL, {}) == "host-not-allowed"
    twice = Headers(raw=[(b"host", b"localhost"), (b"host", b"evil.example")])
    assert check_request(LOCAL, "GET", twice) is not None


@pytest.mark.parametrize(
    ("origin", "code"),
    [
        (OWN, None),
        ("http://node.lab.example", None),
        ("https://node.lab.example:8443", None),
        ("http://localhost:3000", "origin-not-allowed"),  # another program's page on this machine
        ("http://127.0.0.1:8080", "origin-not-allowed"),
        ("https://evil.example", "origin-not-allowed"),
        ("null", "origin-not-allowed"),
        ("", "origin-not-allowed"),
        ("http://[", "origin-not-allowed"),
    ],
)
def test_check_origin(origin: str, code: str | None) -> None:
    sent = {"host": "localhost:8080", "origin": origin}
    assert refusal(LOCAL, sent) == code
    assert refusal(OPEN, {**sent, "authorization": "Bearer t0k"}) == code


@pytest.mark.parametrize(
    ("site", "mode", "method", "code"),
    [
        ("same-origin", "cors", "POST", None),
        ("none", "navigate", "GET", None),
        ("cross-site", "navigate", "GET", None),  # following a link
        ("cross-site", "navigate", "POST", "cross-site"),  # a form on another page
        ("cross-site", "no-cors", "GET", "cross-site"),
    ],
)
def test_check_origin_fetch_metadata(site: str, mode: str, method: str, code: str | None) -> None:
    sent = {"host": "localhost:8080", "sec-fetch-site": site, "sec-fetch-mode": mode}
    assert refusal(LOCAL, sent, method) == code


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.mark.parametrize(
    ("authorization", "code"),
    [
        ("Bearer t0k", None),
        ("bearer  t0k", None),
        ("Bearer b0b", None),
        (basic("anything", "t0k"), None),
        ("", "unauthorized"),
        ("Bearer ", "unauthorized"),
        ("Basic !!!", "unauthorized"),
        ("Digest t0k", "unauthorized"),
        ("t0k", "unauthorized"),
        ("Bearer t0k2", "token-unknown"),
        ("Bearer " + token_digest("t0k"), "token-unknown"),
        (basic("ada", "wrong"), "token-unknown"),
    ],
)
def test_check_token(authorization: str, code: str | None) -> None:
    assert refusal(OPEN, {"host": "any.example", "authorization": authorization}) == code


@pytest.mark.parametrize(
    ("host", "bind", "starts"),
    [
        ("127.0.0.1", None, True),
        ("::1", None, True),
        ("localhost", None, True),
        ("0.0.0.0", None, False),
        ("192.168.1.5", None, False),
        ("0.0.0.0", "127.0.0.1", True),  # a container, published on loopback
        ("0.0.0.0", "0.0.0.0", False),
        ("127.0.0.1", "0.0.0.0", False),
    ],
)
def test_policy_public_without_tokens_is_refused(host: str, bind: str | None, starts: bool) -> None:
    settings = GatewaySettings(host=host, gateway_bind=bind)
    if starts:
        assert not policy_from(settings).tokens
        return
    with pytest.raises(InvalidInput) as refused:
        policy_from(settings)
    assert refused.value.code == "tokens-needed"
    assert "MAO_TOKENS_FILE" in (refused.value.next or "")


def test_policy_tokens_file_applies_to_everybody(tmp_path: Path) -> None:
    token, line = new_token("ada")
    path = tmp_path / "tokens"
    path.write_text(f"# operators\n\n{line}\n")
    policy = policy_from(GatewaySettings(host="127.0.0.1", tokens_file=path))
    assert token_owner(policy.tokens, token) == "ada"
    assert token_owner(policy.tokens, "other") is None
    assert token not in path.read_text()


@pytest.mark.parametrize("text", ["", "# only a comment\n", "ada:short\n", "ada\n", f"a b:{'0' * 64}\n"])
def test_read_tokens_invalid_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "tokens"
    path.write_text(text)
    with pytest.raises(InvalidInput) as refused:
        read_tokens(path)
    assert refused.value.code == "tokens-invalid"


def test_read_tokens_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot be read"):
        read_tokens(tmp_path / "none")


READS = """
import sys
from pathlib import Path
from mao_gateway.auth import read_tokens
from mao_shared.errors import InvalidInput
try:
    read_tokens(Path(sys.argv[1]))
except InvalidInput as error:
    print(error.code, error.detail, error.next)
"""


@needs_root
@pytest.mark.parametrize(("folder_mode", "file_mode"), [(0o755, 0o600), (0o700, 0o644)])
def test_read_tokens_permission_denied(folder_mode: int, file_mode: int) -> None:
    python, env = python_for(NOBODY)
    with common_folder() as folder:
        path = folder / "closed" / "tokens"
        path.parent.mkdir(mode=folder_mode)
        path.write_text("ada:short\n")
        path.chmod(file_mode)
        argv = as_user(NOBODY, python, "-c", READS, str(path))
        told = subprocess.run(argv, env=env, capture_output=True, text=True)
    assert f"cannot be read by user {NOBODY}" in told.stdout, told.stderr
    assert f"tokens-invalid The tokens file {path}" in told.stdout
    assert f"chown {NOBODY} {path}" in told.stdout


def test_settings_hosts_are_normalised() -> None:
    assert GatewaySettings(allowed_hosts=" Node.Lab , b,").hosts == {"node.lab", "b"}
    assert host_name("Node.Lab:80") == "node.lab"
