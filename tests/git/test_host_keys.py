"""known_hosts is read as ssh reads it: patterns, hashed names, ports, marks, line ends, several keys."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mao_datamgmt.datasets.clones import check_remote
from mao_git.remotes import host_keys
from mao_git.remotes.host_keys import SshHost
from mao_shared.errors import MaoError
from tests.datamgmt.world import context_for
from tests.support.git import bare_repository
from tests.support.sshd import SshServer, ssh_server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    with ssh_server(tmp_path_factory.mktemp("sshd")) as running:
        yield running


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Keys that the server does not have: kind → `kind base64`."""
    folder = tmp_path_factory.mktemp("others")
    found = {}
    for kind in ("rsa", "ecdsa", "ed25519"):
        subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", str(folder / kind)], check=True)
        found[kind] = " ".join((folder / f"{kind}.pub").read_text().split()[:2])
    return found


@pytest.fixture
def known_hosts(server: SshServer) -> Iterator[Path]:
    path = server.key_dir / "known_hosts"
    right = path.read_text()
    yield path
    path.write_text(right)


Lines = Callable[[int, str, dict[str, str]], str]
TRUSTED: dict[str, Lines] = {
    "pattern": lambda port, key, _: f"[127.0.0.*]:{port} {key}\n",
    "pattern for any port": lambda _, key, __: f"[127.0.0.?]:*,foo {key}\n",
    "pattern for all": lambda _, key, __: f"* {key}\n",
    "negated for another": lambda _, key, __: f"!10.*,* {key}\n",
    "the host at any port": lambda _, key, __: f"127.0.0.1 {key}\n",
    "a pattern of hosts at any port": lambda _, key, __: f"127.0.* {key}\n",
    "CRLF": lambda port, key, _: f"[127.0.0.1]:{port} {key}\r\n",
    "CRLF with a comment and empty lines": lambda port, key, other: (
        f"# hosts\r\n\r\nfoo {other['rsa']}\r\n[127.0.0.1]:{port} {key} me@here\r\n\r\n"
    ),
    "BOM": lambda port, key, _: f"\ufeff[127.0.0.1]:{port} {key}\n",
    "tabs, blanks before": lambda port, key, _: f"  [127.0.0.1]:{port}\t{key}\n".replace(" ", "\t"),
    "no line end": lambda port, key, _: f"[127.0.0.1]:{port} {key}",
    "garbage around": lambda port, key, _: f"garbage\nfoo bar\nx ssh-rsa !!!\n[127.0.0.1]:{port} {key}\n",
    "an authority for others": lambda port, key, other: (
        f"@cert-authority *.example.org {other['rsa']}\n[127.0.0.1]:{port} {key}\n"
    ),
    "another key that is revoked": lambda port, key, other: (
        f"@revoked * {other['ed25519']}\n[127.0.0.1]:{port} {key}\n"
    ),
    "keys of several kinds": lambda port, key, other: "".join(
        f"[127.0.0.1]:{port} {each}\n" for each in (other["rsa"], other["ecdsa"], key)
    ),
    "an old key beside the new": lambda port, key, other: (
        f"[127.0.0.1]:{port} {other['ed25519']}\n[127.0.0.1]:{port} {key}\n"
    ),
    "a kind that is not known here": lambda port, key, other: (
        f"[127.0.0.1]:{port} sk-{other['ed25519']}\n[127.0.0.1]:{port} {key}\n"
    ),
    "another port has another key": lambda port, key, other: (
        f"[127.0.0.1]:{port + 1} {other['ed25519']}\n127.0.0.1 {key}\n"
    ),
}


@pytest.mark.sshd
@pytest.mark.parametrize("how", TRUSTED)
def test_host_key_is_trusted_as_by_ssh(
    tmp_path: Path, server: SshServer, known_hosts: Path, others: dict[str, str], how: str
) -> None:
    key = server.host_key_line().partition(" ")[2].strip()
    known_hosts.write_bytes(TRUSTED[how](server.port, key, others).encode())
    remote = bare_repository(tmp_path / "remote.git")
    check_remote(context_for(tmp_path, ssh_dir=server.key_dir), server.url(remote))


NOT_TRUSTED: dict[str, tuple[Lines, str, str]] = {
    "revoked": (
        lambda port, key, _: f"@revoked * {key}\n[127.0.0.1]:{port} {key}\n",
        "host-key-revoked",
        "@revoked",
    ),
    "revoked afterwards": (
        lambda port, key, _: f"[127.0.0.1]:{port} {key}\r\n@revoked [127.0.0.1]:{port} {key}\r\n",
        "host-key-revoked",
        "@revoked",
    ),
    "an authority only": (
        lambda _, key, __: f"@cert-authority * {key}\n",
        "host-key-unknown",
        "@cert-authority",
    ),
    "negated": (
        lambda port, key, _: f"*,![127.0.0.1]:{port},!127.0.0.1 {key}\n",
        "host-key-unknown",
        "not in known_hosts",
    ),
    "another port": (
        lambda port, key, _: f"[127.0.0.1]:{port + 1} {key}\n",
        "host-key-unknown",
        "not in known_hosts",
    ),
    "another key": (
        lambda port, _, other: f"[127.0.0.1]:{port} {other['ed25519']}\n",
        "host-key-changed",
        "intercept",
    ),
    "another key by a pattern, CRLF": (
        lambda _, __, other: f"[127.*]:* {other['ed25519']}\r\n",
        "host-key-changed",
        "intercept",
    ),
    "its own line before the host's": (
        lambda port, key, other: f"127.0.0.1 {key}\n[127.0.0.1]:{port} {other['ed25519']}\n",
        "host-key-changed",
        "intercept",
    ),
    "a key of another kind": (
        lambda port, _, other: f"[127.0.0.1]:{port} {other['rsa']}\n",
        "host-key-unknown",
        "another algorithm",
    ),
}


@pytest.mark.sshd
@pytest.mark.parametrize("how", NOT_TRUSTED)
def test_host_key_is_refused_as_by_ssh(
    tmp_path: Path, server: SshServer, known_hosts: Path, others: dict[str, str], how: str
) -> None:
    lines, code, words = NOT_TRUSTED[how]
    key = server.host_key_line().partition(" ")[2].strip()
    known_hosts.write_text(lines(server.port, key, others), newline="")
    remote = bare_repository(tmp_path / "remote.git")
    with pytest.raises(MaoError) as caught:
        check_remote(context_for(tmp_path, ssh_dir=server.key_dir), server.url(remote))
    assert (caught.value.code, words in caught.value.detail) == (code, True), caught.value.detail
    assert caught.value.detail.count(server.fingerprint()) == 1


@pytest.mark.sshd
def test_host_key_removed_from_known_hosts_is_refused(
    tmp_path: Path, server: SshServer, known_hosts: Path
) -> None:
    context = context_for(tmp_path, ssh_dir=server.key_dir)
    url = server.url(bare_repository(tmp_path / "remote.git"))
    check_remote(context, url)
    known_hosts.write_text("")
    with pytest.raises(MaoError):
        check_remote(context, url)
    known_hosts.write_text(server.host_key_line())
    check_remote(context, url)


def test_known_keys_of_a_hashed_name(tmp_path: Path) -> None:
    path = tmp_path / "known_hosts"
    path.write_text("git.example.org,10.0.0.1 ssh-rsa QUFB\n[git.example.org]:2222 ssh-rsa QkJC\n")
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(path)], check=True, capture_output=True)
    text = path.read_text()
    assert "git.example.org" not in text
    keys = {
        site: host_keys.known_keys(text, site).keys
        for site in (
            SshHost("git.example.org", 22),
            SshHost("10.0.0.1", 22),
            SshHost("Git.Example.Org", 2222),
            SshHost("git.example.org", 2223),
            SshHost("other.example.org", 22),
        )
    }
    assert [[key for _, key in each] for each in keys.values()] == [
        ["QUFB"],
        ["QUFB"],
        ["QkJC"],
        ["QUFB"],
        [],
    ]


def test_scan_host_key_without_ssh_keyscan(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert host_keys.scan_host_key(SshHost("127.0.0.1", 22)) is None


def test_scan_host_key_takes_no_host_for_an_option() -> None:
    assert host_keys.scan_host_key(SshHost("-h", 1)) is None
