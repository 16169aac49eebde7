"""Datasets on a real sshd: keys and known_hosts come from the key directory only."""

from __future__ import annotations

import io
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mao_datamgmt.datasets import clones
from mao_git import lfs, repository
from mao_git.remotes import git_lfs, host_keys
from mao_shared.errors import Forbidden, InvalidInput, MaoError, RemoteUnavailable
from mao_shared.states import StepPhase
from tests.datamgmt.world import NODE, context_for, run_of, step, working, writes
from tests.support.git import bare_repository, git
from tests.support.ports import free_port
from tests.support.sshd import SshServer, keygen, ssh_server

pytestmark = pytest.mark.sshd
LET_IN = "unrecognized command .*git-lfs-authenticate"  # says the server's git-shell to a user that it let in


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    with ssh_server(tmp_path_factory.mktemp("sshd")) as running:
        yield running


@pytest.fixture
def known_hosts(server: SshServer) -> Iterator[Path]:
    """Yield the path of known_hosts, and restore the file afterwards."""
    path = server.key_dir / "known_hosts"
    right = path.read_text()
    yield path
    path.write_text(right)


@pytest.fixture
def url(tmp_path: Path, server: SshServer) -> str:
    return server.url(bare_repository(tmp_path / "remote.git"))


def refused(tmp_path: Path, server: SshServer, url: str) -> MaoError:
    """Return the error with which a clone of `url` is refused."""
    context = context_for(tmp_path, ssh_dir=server.key_dir)
    with pytest.raises(MaoError) as caught:
        clones.ensure_clone(context, "data", url)
    assert caught.value.next
    assert not context.data.clone("data").exists()
    assert not list(context.data.clone("data").parent.iterdir())
    return caught.value


async def test_ssh_run_is_published(tmp_path: Path, server: SshServer, url: str) -> None:
    async with working(tmp_path, ssh_dir=server.key_dir) as world:
        for number in range(2):
            run = run_of(f"run-{number}", step("collect", "data", url), after=number)
            done = await world.whole(run, writes(a=str(number)))
            assert done.phase is StepPhase.SUCCEEDED, done.error
            assert done.pushed, done.waiting
    remote = tmp_path / "remote.git"
    assert git(remote, "rev-parse", NODE, "ground-truth").split() == [done.snapshot] * 2
    assert git(remote, "rev-list", "--count", NODE) == "3"
    git(remote, "fsck", "--strict", "--full")


def test_ssh_unknown_host_key_is_refused(
    tmp_path: Path, server: SshServer, url: str, known_hosts: Path
) -> None:
    known_hosts.write_text("")
    error = refused(tmp_path, server, url)
    assert isinstance(error, Forbidden)
    assert error.code == "host-key-unknown"
    assert server.fingerprint() in error.detail
    assert f"ssh-keyscan -p {server.port} 127.0.0.1 >>" in (error.next or "")


def test_ssh_without_known_hosts_is_refused(
    tmp_path: Path, server: SshServer, url: str, known_hosts: Path
) -> None:
    known_hosts.unlink()
    assert refused(tmp_path, server, url).code == "host-key-unknown"


def test_ssh_changed_host_key_is_refused(
    tmp_path: Path, server: SshServer, url: str, known_hosts: Path
) -> None:
    keygen(tmp_path / "other")
    kind, key = (tmp_path / "other.pub").read_text().split()[:2]
    known_hosts.write_text(f"[127.0.0.1]:{server.port} {kind} {key}\n")
    error = refused(tmp_path, server, url)
    assert error.code == "host-key-changed"
    assert server.fingerprint() in error.detail


def test_ssh_hashed_known_hosts(tmp_path: Path, server: SshServer, url: str, known_hosts: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(known_hosts)], check=True, capture_output=True)
    Path(f"{known_hosts}.old").unlink()
    site = host_keys.parse_ssh_host(url)
    assert site is not None
    assert host_keys.known_keys(known_hosts.read_text(), site).fingerprints == [server.fingerprint()]
    clones.ensure_clone(context_for(tmp_path, ssh_dir=server.key_dir), "data", url)
    assert git(tmp_path / "remote.git", "rev-list", "--count", NODE) == "1"


def test_ssh_key_unknown_to_the_server(tmp_path: Path, server: SshServer, url: str) -> None:
    keys = tmp_path / "keys"
    keys.mkdir()
    keygen(keys / "id_ed25519")
    (keys / "known_hosts").write_text(server.host_key_line())
    context = context_for(tmp_path, ssh_dir=keys)
    with pytest.raises(Forbidden) as caught:
        clones.ensure_clone(context, "data", url)
    assert caught.value.code == "remote-auth-failed"
    assert "id_ed25519" in caught.value.detail


def test_ssh_without_a_key(tmp_path: Path, server: SshServer, url: str) -> None:
    keys = tmp_path / "keys"
    keys.mkdir()
    (keys / "known_hosts").write_text(server.host_key_line())
    with pytest.raises(Forbidden) as caught:
        clones.ensure_clone(context_for(tmp_path, ssh_dir=keys), "data", url)
    assert caught.value.code == "remote-auth-failed"


def test_ssh_without_a_repository(tmp_path: Path, server: SshServer) -> None:
    error = refused(tmp_path, server, server.url(tmp_path / "none.git"))
    assert isinstance(error, InvalidInput)
    assert error.code == "dataset-unreachable"


def test_ssh_without_a_server(tmp_path: Path, server: SshServer) -> None:
    error = refused(tmp_path, server, f"ssh://git@127.0.0.1:{free_port()}/x.git")
    assert isinstance(error, RemoteUnavailable)


@pytest.mark.parametrize("trouble", ["takes no push", "knows the node no more"])
async def test_ssh_refusal_is_a_condition_until_pushed(
    tmp_path: Path, server: SshServer, url: str, trouble: str, known_hosts: Path
) -> None:
    """Refuse like a protected branch, an archived repository, or a server with a changed host key."""
    hook = tmp_path / "remote.git" / "hooks" / "pre-receive"
    right = known_hosts.read_text()
    async with working(tmp_path, ssh_dir=server.key_dir, push_retry=3600) as world:
        await world.whole(run_of("run-0", step("collect", "data", url)), writes(a="0"))
        conditions = world.manager.conditions
        assert conditions.current() == []
        if trouble == "takes no push":
            hook.parent.mkdir(exist_ok=True)
            hook.write_text("#!/bin/sh\necho this repository is read-only >&2\nexit 1\n")
            hook.chmod(0o755)
        else:
            known_hosts.write_text("")
        done = await world.whole(run_of("run-1", step("collect", "data", url), after=1), writes(a="1"))
        assert (done.phase, done.pushed) == (StepPhase.SUCCEEDED, False)
        [told] = conditions.current()
        assert (told.name, told.subject, told.state) == ("remote", "data", "degraded")
        assert told.detail
        assert told.next
        hook.unlink(missing_ok=True)
        known_hosts.write_text(right)
        await world.manager.push_now("data")
        assert conditions.current() == []
    assert git(tmp_path / "remote.git", "rev-list", "--count", NODE) == "3"


@pytest.mark.parametrize("name", ["lab:data", "my data", '50% "it\'s" ${HOME} \\', "tab\tbed:$x"])
def test_ssh_with_special_characters_in_paths(tmp_path: Path, server: SshServer, url: str, name: str) -> None:
    """libgit2 splits its folders at colons; the other characters are special to ssh, which git-lfs runs."""
    keys = shutil.copytree(server.key_dir, tmp_path / name / "keys")
    context = context_for(tmp_path / name, ssh_dir=keys, local_remotes=str(tmp_path))
    clone = clones.ensure_clone(context, "data", url)
    assert git(tmp_path / "remote.git", "rev-list", "--count", NODE) == "1"
    lfs.store(clone, io.BytesIO(b"large"))
    with pytest.raises(MaoError, match=LET_IN):
        git_lfs.push_content(clone, context.access)


def test_ssh_lfs_connects_first(tmp_path: Path, server: SshServer, url: str) -> None:
    context = context_for(tmp_path, ssh_dir=server.key_dir)
    clone = clones.ensure_clone(context, "data", url)
    (context.data.root / "git-home" / repository.TRUSTED / "known_hosts").unlink()  # as after an upgrade
    lfs.store(clone, io.BytesIO(b"large"))
    with pytest.raises(MaoError, match=LET_IN):
        git_lfs.push_content(clone, context.access)
