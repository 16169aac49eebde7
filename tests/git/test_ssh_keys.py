"""An unusable SSH key is reported with its fault: when adding a dataset, in the outbox, and by doctor."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mao_datamgmt.datasets.clones import check_remote
from mao_git.remotes import access
from mao_shared.errors import MaoError
from mao_shared.states import StepPhase
from tests.datamgmt.world import context_for, run_of, step, working, writes
from tests.support.git import bare_repository
from tests.support.sshd import SshServer, keygen, ssh_server

ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="giving files away takes root")
NOBODY = 65534


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    with ssh_server(tmp_path_factory.mktemp("sshd")) as running:
        yield running


def make(path: Path, *options: str) -> None:
    path.unlink(missing_ok=True)
    subprocess.run(["ssh-keygen", "-q", "-f", str(path), *options], check=True)


def replaced(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def spoil(key: Path) -> None:
        key.write_bytes(change(key.read_bytes()))

    return spoil


def as_folder(key: Path) -> None:
    key.unlink()
    key.mkdir()


def as_dead_link(key: Path) -> None:
    key.unlink()
    key.symlink_to(key.with_name("gone"))


def one_line_of_rsa(key: Path) -> None:
    make(key, "-t", "rsa", "-m", "PEM", "-N", "")
    replaced(lambda text: text.replace(b"\n", b" "))(key)


FAULTS: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "passphrase": (
        lambda key: make(key, "-t", "ed25519", "-N", "secret"),
        "passphrase",
        "ssh-keygen -p -N ''",
    ),
    "passphrase, RSA": (lambda key: make(key, "-t", "rsa", "-N", "secret"), "passphrase", "ssh-keygen -p"),
    "passphrase, PEM": (
        lambda key: make(key, "-t", "rsa", "-m", "PEM", "-N", "secret"),
        "passphrase",
        "ssh-keygen -p",
    ),
    "passphrase, PKCS8": (
        lambda key: make(key, "-t", "ecdsa", "-m", "PKCS8", "-N", "secret"),
        "passphrase",
        "ssh-keygen -p",
    ),
    "public": (lambda key: shutil.copy(f"{key}.pub", key), "public key", "without .pub"),
    "folder": (as_folder, "is a folder", "mount"),
    "dead link": (as_dead_link, "broken symbolic link", "itself"),
    "empty": (replaced(lambda _: b""), "is empty", "Put the key there"),
    "truncated": (replaced(lambda text: text[:200]), "truncated", "Copy it again"),
    "cut within": (
        replaced(lambda text: b"\n".join([*text.splitlines()[:3], *text.splitlines()[-1:], b""])),
        "damaged",
        "ssh-keygen -y",
    ),
    "mark before": (
        replaced(lambda text: b"\xef\xbb\xbf" + text),
        "lines were changed",
        "Copy the file again",
    ),
    "indented": (
        replaced(lambda text: b"\n".join(b"  " + line for line in text.splitlines())),
        "lines were changed",
        "ssh-keygen -y",
    ),
    "one line": (replaced(lambda text: text.replace(b"\n", b" ")), "lines were changed", "ssh-keygen -y"),
    "one line, RSA": (one_line_of_rsa, "lines were changed", "ssh-keygen -y"),
    "something else": (replaced(lambda _: b"a,b\n1,2\n"), "not a private key", "ssh-keygen -t ed25519"),
    "PuTTY": (replaced(lambda _: b"PuTTY-User-Key-File-3: ssh-ed25519\n"), "PuTTY", "puttygen"),
}


@pytest.fixture
def keys(tmp_path: Path, server: SshServer) -> Path:
    """Make a key directory with a key that the server accepts."""
    folder = tmp_path / "keys"
    shutil.copytree(server.key_dir, folder)
    return folder


@pytest.mark.sshd
@pytest.mark.parametrize("how", FAULTS)
def test_key_fault_is_named(tmp_path: Path, server: SshServer, keys: Path, how: str) -> None:
    spoil, words, advice = FAULTS[how]
    spoil(keys / "id_ed25519")
    url = server.url(bare_repository(tmp_path / "remote.git"))
    with pytest.raises(MaoError) as caught:
        check_remote(context_for(tmp_path, ssh_dir=keys), url)
    assert caught.value.code == "ssh-key-unusable"
    assert "id_ed25519: " in caught.value.detail
    assert words in caught.value.detail
    assert advice in (caught.value.next or "")
    [fault] = access.key_faults(keys)
    assert (fault.name, words in fault.why, fault.usable) == ("id_ed25519", True, False)


@pytest.mark.sshd
@pytest.mark.parametrize("how", FAULTS)
def test_key_fault_of_one_key_leaves_the_others(
    tmp_path: Path, server: SshServer, keys: Path, how: str
) -> None:
    shutil.copy(keys / "id_ed25519", keys / "id_rsa")  # a name says nothing of the kind
    FAULTS[how][0](keys / "id_ed25519")
    check_remote(context_for(tmp_path, ssh_dir=keys), server.url(bare_repository(tmp_path / "remote.git")))


@pytest.mark.sshd
@pytest.mark.parametrize(
    "options",
    [
        ("-t", "ed25519"),
        ("-t", "rsa"),
        ("-t", "rsa", "-m", "PEM"),
        ("-t", "ecdsa"),
        ("-t", "ecdsa", "-m", "PEM"),
    ],
)
@pytest.mark.parametrize("ends", [b"\n", b"\r\n"])
def test_usable_keys_of_all_kinds(
    tmp_path: Path, server: SshServer, keys: Path, options: tuple[str, ...], ends: bytes
) -> None:
    """Usable keys include those with CRLF line ends, and those without the public key beside them."""
    key = keys / "id_ed25519"
    make(key, *options, "-N", "")
    key.write_bytes(key.read_bytes().replace(b"\n", ends))
    authorized = server.root / "authorized_keys"
    before = authorized.read_text()
    authorized.write_text(before + Path(f"{key}.pub").read_text())
    Path(f"{key}.pub").unlink()
    try:
        assert access.key_faults(keys) == []
        url = server.url(bare_repository(tmp_path / "remote.git"))
        check_remote(context_for(tmp_path, ssh_dir=keys), url)
    finally:
        authorized.write_text(before)


@pytest.mark.sshd
async def test_key_fault_is_reported_until_fixed(tmp_path: Path, server: SshServer, keys: Path) -> None:
    url = server.url(bare_repository(tmp_path / "remote.git"))
    async with working(tmp_path, ssh_dir=keys, push_retry=3600) as world:
        await world.whole(run_of("run-0", step("collect", "data", url)), writes(a="0"))
        await world.manager.health.check_ssh_keys()
        assert world.manager.conditions.current() == []
        make(keys / "id_ed25519", "-t", "ed25519", "-N", "secret")
        done = await world.whole(run_of("run-1", step("collect", "data", url), after=1), writes(a="1"))
        assert (done.phase, done.pushed) == (StepPhase.SUCCEEDED, False)
        outbox = (await world.manager.status("data")).outbox
        assert (outbox.state, outbox.code, outbox.waiting) == ("auth", "ssh-key-unusable", 1)
        assert "passphrase" in (outbox.detail or "")
        await world.manager.health.check_ssh_keys()
        told = {
            (condition.name, condition.subject): condition for condition in world.manager.conditions.current()
        }
        assert set(told) == {("remote", "data"), ("ssh-key", "id_ed25519")}
        assert "passphrase" in told["ssh-key", "id_ed25519"].detail
        assert "ssh-keygen" in told["ssh-key", "id_ed25519"].next
        shutil.copy(server.key_dir / "id_ed25519", keys / "id_ed25519")
        await world.manager.push_now("data")
        await world.manager.health.check_ssh_keys()
        assert world.manager.conditions.current() == []


@pytest.mark.sshd
def test_why_no_key_names_other_files(tmp_path: Path, server: SshServer, keys: Path) -> None:
    (keys / "id_ed25519").rename(keys / "deploy_key")
    with pytest.raises(MaoError) as caught:
        check_remote(context_for(tmp_path, ssh_dir=keys), server.url(bare_repository(tmp_path / "r.git")))
    assert caught.value.code == "remote-auth-failed"
    assert "deploy_key" in caught.value.detail
    assert "id_ed25519" in (caught.value.next or "")
    assert access.key_faults(keys) == []


def test_why_no_key_without_a_directory() -> None:
    assert "MAO_SSH_DIR is not set" in access.why_no_key(None)
    assert access.key_faults(None) == []


@pytest.mark.parametrize(("how", "words"), [("gone", "does not exist"), ("a file", "is a file")])
def test_key_directory_fault_is_named(tmp_path: Path, how: str, words: str) -> None:
    folder = tmp_path / "keys"
    if how == "a file":
        keygen(folder)
    [fault] = access.key_faults(folder)
    assert (fault.name, words in fault.why) == ("key directory", True)
    assert words in access.why_no_key(folder)


@pytest.fixture
def open_to_all() -> Iterator[Path]:
    """Make a folder that another user may read."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@ROOT_ONLY
@pytest.mark.parametrize("what", ["id_ed25519", "known_hosts", "key directory"])
def test_key_fault_of_permissions_names_the_owner(open_to_all: Path, what: str) -> None:
    """Run as another user, since root may read everything."""
    folder = open_to_all / "keys"
    folder.mkdir()
    keygen(folder / "id_ed25519")
    os.chown(folder / "id_ed25519", NOBODY, NOBODY)
    (folder / "known_hosts").touch()
    closed = folder if what == "key directory" else folder / what
    os.chown(closed, 1000, 1000)
    closed.chmod(0o700 if closed == folder else 0o600)
    os.seteuid(NOBODY)
    try:
        [fault] = access.key_faults(folder)
        usable = access.usable_keys(folder)
        why = access.why_no_key(folder)
    finally:
        os.seteuid(0)
    assert fault.name == what
    assert f"user {NOBODY}" in fault.why
    assert "belongs to user 1000" in fault.why
    assert f"chown {NOBODY}" in fault.next
    assert (usable == []) == (what != "known_hosts")
    assert (fault.why in why) == (what != "known_hosts")


def test_key_readable_by_all_is_used_and_reported(tmp_path: Path) -> None:
    keygen(tmp_path / "id_ed25519")
    (tmp_path / "id_ed25519").chmod(0o644)
    [fault] = access.key_faults(tmp_path)
    assert (fault.usable, "0644" in fault.why, "chmod 600" in fault.next) == (True, True, True)
    assert access.usable_keys(tmp_path) == [tmp_path / "id_ed25519"]


def test_known_hosts_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "known_hosts").mkdir()
    [fault] = access.key_faults(tmp_path)
    assert (fault.name, "folder" in fault.why) == ("known_hosts", True)


def test_key_link_of_compose_is_no_fault(tmp_path: Path) -> None:
    host, folder = tmp_path / "ssh-host", tmp_path / "ssh"
    host.mkdir()
    folder.mkdir(mode=0o700)
    for name in ("id_ed25519", "id_rsa", "known_hosts"):
        (folder / name).symlink_to(host / name)
    assert access.key_faults(folder) == []
    assert access.usable_keys(folder) == []
    make(host / "id_rsa", "-t", "rsa", "-b", "2048", "-N", "")  # a longer one takes a second to make
    assert access.usable_keys(folder) == [folder / "id_rsa"]
    (host / "id_ed25519").symlink_to(tmp_path / "nowhere" / "id_ed25519")  # which the host means, and lacks
    (host / "known_hosts").symlink_to("gone")
    assert [fault.name for fault in access.key_faults(folder)] == ["id_ed25519", "known_hosts"]


@pytest.mark.sshd
def test_known_hosts_not_utf8_is_named(tmp_path: Path, server: SshServer, keys: Path) -> None:
    (keys / "known_hosts").write_text(server.host_key_line(), encoding="utf-16")
    [fault] = access.key_faults(keys)
    assert (fault.name, "UTF-16" in fault.why, "iconv" in fault.next) == ("known_hosts", True, True)
    with pytest.raises(MaoError) as caught:
        check_remote(context_for(tmp_path, ssh_dir=keys), server.url(bare_repository(tmp_path / "r.git")))
    assert caught.value.code == "host-key-unknown"
    assert "UTF-16" in caught.value.detail


@pytest.mark.sshd
def test_key_that_libssh2_cannot_read_is_named(tmp_path: Path, server: SshServer, keys: Path) -> None:
    head, *lines, end = (keys / "id_ed25519").read_bytes().splitlines()
    body = base64.b64decode(b"".join(lines))
    body = body[:-140] + bytes(140)  # of the private part, which is as long as before
    (keys / "id_ed25519").write_bytes(b"\n".join([head, base64.b64encode(body), end, b""]))
    assert access.key_faults(keys) == []
    with pytest.raises(MaoError) as caught:
        check_remote(context_for(tmp_path, ssh_dir=keys), server.url(bare_repository(tmp_path / "r.git")))
    assert caught.value.code == "ssh-key-unusable"
    assert "ssh-keygen" in (caught.value.next or "")
