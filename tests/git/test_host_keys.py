"""known_hosts is read as by ssh: patterns, hashed names, ports, markers, line ends, several keys."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
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
    """Make keys that the server does not have: kind → `kind base64`."""
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


def lines_for(template: str, server: SshServer, others: dict[str, str]) -> str:
    """Fill in known_hosts lines: {key} is the server's key, {rsa}, {ecdsa} and {ed25519} are others."""
    key = server.host_key_line().partition(" ")[2].strip()
    facts = {"port": server.port, "other_port": server.port + 1, "key": key} | others
    return template.format(**facts, tabbed_key=key.replace(" ", "\t"))


TRUSTED = {
    "pattern": "[127.0.0.*]:{port} {key}\n",
    "pattern for any port": "[127.0.0.?]:*,foo {key}\n",
    "pattern for all": "* {key}\n",
    "negated for another": "!10.*,* {key}\n",
    "the host at any port": "127.0.0.1 {key}\n",
    "a pattern of hosts at any port": "127.0.* {key}\n",
    "CRLF": "[127.0.0.1]:{port} {key}\r\n",
    "CRLF with a comment and empty lines": (
        "# hosts\r\n\r\nfoo {rsa}\r\n[127.0.0.1]:{port} {key} me@here\r\n\r\n"
    ),
    "BOM": "\ufeff[127.0.0.1]:{port} {key}\n",
    "tabs, blanks before": "\t\t[127.0.0.1]:{port}\t{tabbed_key}\n",
    "no line end": "[127.0.0.1]:{port} {key}",
    "garbage around": "garbage\nfoo bar\nx ssh-rsa !!!\n[127.0.0.1]:{port} {key}\n",
    "an authority for others": "@cert-authority *.example.org {rsa}\n[127.0.0.1]:{port} {key}\n",
    "another key that is revoked": "@revoked * {ed25519}\n[127.0.0.1]:{port} {key}\n",
    "keys of several kinds": (
        "[127.0.0.1]:{port} {rsa}\n[127.0.0.1]:{port} {ecdsa}\n[127.0.0.1]:{port} {key}\n"
    ),
    "an old key beside the new": "[127.0.0.1]:{port} {ed25519}\n[127.0.0.1]:{port} {key}\n",
    "a kind that is not known here": "[127.0.0.1]:{port} sk-{ed25519}\n[127.0.0.1]:{port} {key}\n",
    "another port has another key": "[127.0.0.1]:{other_port} {ed25519}\n127.0.0.1 {key}\n",
}


@pytest.mark.sshd
@pytest.mark.parametrize("template", TRUSTED.values(), ids=TRUSTED)
def test_host_key_is_trusted_as_by_ssh(
    tmp_path: Path, server: SshServer, known_hosts: Path, others: dict[str, str], template: str
) -> None:
    known_hosts.write_text(lines_for(template, server, others), newline="")
    remote = bare_repository(tmp_path / "remote.git")
    check_remote(context_for(tmp_path, ssh_dir=server.key_dir), server.url(remote))


REFUSED = {
    "revoked": ("@revoked * {key}\n[127.0.0.1]:{port} {key}\n", "host-key-revoked", "@revoked"),
    "revoked afterwards": (
        "[127.0.0.1]:{port} {key}\r\n@revoked [127.0.0.1]:{port} {key}\r\n",
        "host-key-revoked",
        "@revoked",
    ),
    "an authority only": ("@cert-authority * {key}\n", "host-key-unknown", "@cert-authority"),
    "negated": ("*,![127.0.0.1]:{port},!127.0.0.1 {key}\n", "host-key-unknown", "not in known_hosts"),
    "another port": ("[127.0.0.1]:{other_port} {key}\n", "host-key-unknown", "not in known_hosts"),
    "another key": ("[127.0.0.1]:{port} {ed25519}\n", "host-key-changed", "intercept"),
    "another key by a pattern, CRLF": ("[127.*]:* {ed25519}\r\n", "host-key-changed", "intercept"),
    "its own line before the host's": (
        "127.0.0.1 {key}\n[127.0.0.1]:{port} {ed25519}\n",
        "host-key-changed",
        "intercept",
    ),
    "a key of another kind": ("[127.0.0.1]:{port} {rsa}\n", "host-key-unknown", "another algorithm"),
}


@pytest.mark.sshd
@pytest.mark.parametrize(("template", "code", "words"), REFUSED.values(), ids=REFUSED)
def test_host_key_is_refused_as_by_ssh(
    tmp_path: Path,
    server: SshServer,
    known_hosts: Path,
    others: dict[str, str],
    template: str,
    code: str,
    words: str,
) -> None:
    known_hosts.write_text(lines_for(template, server, others), newline="")
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


@pytest.mark.parametrize(
    ("host", "port", "keys"),
    [
        ("git.example.org", 22, ["QUFB"]),
        ("10.0.0.1", 22, ["QUFB"]),
        ("Git.Example.Org", 2222, ["QkJC"]),
        ("git.example.org", 2223, ["QUFB"]),
        ("other.example.org", 22, []),
    ],
)
def test_known_keys_of_a_hashed_name(tmp_path: Path, host: str, port: int, keys: list[str]) -> None:
    path = tmp_path / "known_hosts"
    path.write_text("git.example.org,10.0.0.1 ssh-rsa QUFB\n[git.example.org]:2222 ssh-rsa QkJC\n")
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(path)], check=True, capture_output=True)
    text = path.read_text()
    assert "git.example.org" not in text
    assert [key for _, key in host_keys.known_keys(text, SshHost(host, port)).keys] == keys


def test_scan_host_key_without_ssh_keyscan(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert host_keys.scan_host_key(SshHost("127.0.0.1", 22)) is None


def test_scan_host_key_does_not_treat_a_host_as_an_option() -> None:
    assert host_keys.scan_host_key(SshHost("-h", 1)) is None
