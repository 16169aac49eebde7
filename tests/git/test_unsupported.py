"""Unsupported repositories are refused with their kind and a next step."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mao_datamgmt.context import Context
from mao_datamgmt.datasets import clones
from mao_datamgmt.datasets.clones import check_remote
from mao_datamgmt.datasets.delivery import push_branches
from mao_datamgmt.datasets.push import PushFailure
from mao_git import Clone
from mao_git.remotes.unsupported import unsupported_error
from mao_shared.errors import MaoError
from tests.datamgmt.test_races import commit
from tests.datamgmt.world import BEGIN, NODE, context_for
from tests.support.git import ENV, bare_repository, git
from tests.support.sshd import SshServer, prepare, serving, ssh_server

SSH = pytest.param("ssh", marks=pytest.mark.sshd)
ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="giving files away takes root")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    with ssh_server(tmp_path_factory.mktemp("sshd")) as running:
        yield running


@pytest.fixture
def at(tmp_path: Path, request: pytest.FixtureRequest) -> tuple[Context, Callable[[Path], str]]:
    """Yield a node, and a function from a path to a URL of the transport that the test names."""
    if request.param == "path":
        return context_for(tmp_path), str
    server: SshServer = request.getfixturevalue("server")
    return context_for(tmp_path, ssh_dir=server.key_dir), server.url


BOTH = pytest.mark.parametrize("at", ["path", SSH], indirect=True)


def source(folder: Path, *, file: str | None = None) -> Path:
    """Make a repository with three commits on main."""
    work = folder / "source"
    git(folder, "init", "-q", "-b", "main", str(work))
    for number in range(3):
        (work / (file or "data.csv")).write_text(f"{number}\n" * 10)
        git(work, "add", "-A")
        git(work, "commit", "-qm", str(number))
    return work


def sh(folder: Path, command: str) -> None:
    subprocess.run(command, shell=True, check=True, cwd=folder, env=ENV, capture_output=True)


def shallow(folder: Path) -> Path:
    source(folder)
    sh(folder, f"git clone -q --bare --depth 1 file://{folder}/source x.git")
    return folder / "x.git"


def shallow_with_a_folder(folder: Path) -> Path:
    source(folder)
    sh(folder, f"git clone -q --depth 2 file://{folder}/source x")
    return folder / "x"


def sha256_empty(folder: Path) -> Path:
    sh(folder, "git init -q --bare --object-format=sha256 x.git")
    return folder / "x.git"


def sha256(folder: Path) -> Path:
    sh(folder, "git init -q -b main --object-format=sha256 w && cd w && git commit -q --allow-empty -m x")
    sh(folder, "git clone -q --bare w x.git")
    return folder / "x.git"


def with_extension(name: str, value: str, version: int = 1) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        master = bare_repository(folder / "x.git")
        git(master, "config", "core.repositoryformatversion", str(version))
        if name:
            git(master, "config", f"extensions.{name}", value)
        return master

    return make


def bundle(folder: Path) -> Path:
    git(source(folder), "bundle", "create", str(folder / "x.bundle"), "--all")
    return folder / "x.bundle"


def plain_file(folder: Path) -> Path:
    (folder / "x.csv").write_text("a,b\n")
    return folder / "x.csv"


def broken_configuration(folder: Path) -> Path:
    master = bare_repository(folder / "x.git")
    (master / "config").write_text("[core\n")
    return master


KINDS: dict[str, tuple[Callable[[Path], Path], str, str]] = {
    "shallow": (shallow, "shallow clone", "fetch --unshallow"),
    "shallow with a folder": (shallow_with_a_folder, "shallow clone", "fetch --unshallow"),
    "SHA-256": (sha256, "another hash (sha256)", "--object-format=sha1"),
    "SHA-256, empty": (sha256_empty, "another hash (sha256)", "--object-format=sha1"),
    "reftable": (with_extension("refStorage", "reftable"), "reftable", "refs migrate --ref-format=files"),
    "unknown extension": (with_extension("frobnicate", "yes"), "extension frobnicate", "git clone --mirror"),
    "version 2": (with_extension("", "", 2), "version 2", "git clone --mirror"),
    "broken configuration": (broken_configuration, "configuration", "git config --file"),
}


@BOTH
@pytest.mark.parametrize("kind", KINDS)
def test_unsupported_remote_is_named(
    tmp_path: Path, at: tuple[Context, Callable[[Path], str]], kind: str
) -> None:
    context, url_of = at
    make, words, advice = KINDS[kind]
    url = url_of(make(tmp_path))
    for attempt in (lambda: check_remote(context, url), lambda: clones.ensure_clone(context, "data", url)):
        with pytest.raises(MaoError) as caught:
            attempt()
        assert (caught.value.code, words in caught.value.detail) == ("remote-unsupported", True), caught.value
        assert advice in (caught.value.next or "")
    assert PushFailure(caught.value, 1, BEGIN, BEGIN).state == "refused"
    assert not list(context.data.clone("data").parent.iterdir())


@BOTH
@pytest.mark.parametrize(("make", "words"), [(bundle, "bundle"), (plain_file, "is a file")])
def test_unsupported_file_is_named(
    tmp_path: Path, at: tuple[Context, Callable[[Path], str]], make: Callable[[Path], Path], words: str
) -> None:
    context, url_of = at
    with pytest.raises(MaoError) as caught:
        check_remote(context, url_of(make(tmp_path)))
    assert caught.value.code in ("dataset-unreachable", "remote-unsupported")
    assert words in caught.value.detail


def test_unsupported_empty_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "my data").mkdir()
    with pytest.raises(MaoError) as caught:
        check_remote(context_for(tmp_path), str(tmp_path / "my data"))
    assert (caught.value.code, "empty folder" in caught.value.detail) == ("dataset-unreachable", True)
    assert "mount it" in (caught.value.next or "")
    assert f"git init --bare '{tmp_path}/my data'" in (caught.value.next or "")


def test_unsupported_partial_clone_is_named(tmp_path: Path) -> None:
    git(source(tmp_path), "config", "uploadpack.allowFilter", "true")
    sh(tmp_path, f"git clone -q --bare --filter=blob:none file://{tmp_path}/source x.git")
    with pytest.raises(MaoError) as caught:
        clones.ensure_clone(context_for(tmp_path), "data", str(tmp_path / "x.git"))
    assert (caught.value.code, "partial clone" in caught.value.detail) == ("remote-unsupported", True)
    assert "--refetch" in (caught.value.next or "")


@ROOT_ONLY
@pytest.mark.sshd
def test_unsupported_owner_is_named(tmp_path: Path, server: SshServer) -> None:
    master = bare_repository(tmp_path / "x.git")
    for path in (master, *master.rglob("*")):
        shutil.chown(path, "nobody")
    with pytest.raises(MaoError) as caught:
        check_remote(context_for(tmp_path, ssh_dir=server.key_dir), server.url(master))
    assert (caught.value.code, "another user" in caught.value.detail) == ("remote-unsupported", True)
    assert f"safe.directory {master}" in (caught.value.next or "")


@BOTH
@pytest.mark.parametrize("how", ["worktree", "folder", "HEAD leads nowhere", "HEAD is a commit"])
def test_supported_forms_are_used(
    tmp_path: Path, at: tuple[Context, Callable[[Path], str]], how: str
) -> None:
    """A dataset begins at the existing branch, also if HEAD does not name it."""
    context, url_of = at
    work = source(tmp_path)
    if how == "worktree":
        git(work, "worktree", "add", "-q", str(tmp_path / "tree"), "-b", "side")
        place = tmp_path / "tree"
    elif how == "folder":
        place = work
    else:
        sh(tmp_path, "git clone -q --bare source x.git")
        place = tmp_path / "x.git"
        head = ["symbolic-ref", "HEAD", "refs/heads/none"]
        git(place, *(head if "nowhere" in how else ["update-ref", "--no-deref", "HEAD", "main~1"]))
    url = url_of(place)
    check_remote(context, url)
    clones.ensure_clone(context, "data", url)
    commit(context, "a")
    assert push_branches(context, Clone.open(context.data.clone("data")), promote=True).pushed
    assert git(work if "HEAD" not in how else place, "ls-tree", "--name-only", NODE).split() == [
        "a",
        "data.csv",
    ]


@pytest.mark.sshd
@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        ('echo Welcome; git-shell -c "$SSH_ORIGINAL_COMMAND"', "remote-unsupported", "login script"),
        ("echo This account is currently not available.", "remote-unsupported", "login script"),
        ("echo 'ERROR: Permission to lab/x.git denied to me.' >&2", "remote-auth-failed", "denied to me"),
        ("echo 'ERROR: Repository not found.' >&2", "dataset-unreachable", "not found"),
    ],
)
def test_unsupported_error_of_other_answers(tmp_path: Path, command: str, code: str, words: str) -> None:
    server = prepare(tmp_path / "sshd")
    config = server.root / "sshd_config"
    lines = [line for line in config.read_text().splitlines() if not line.startswith("ForceCommand")]
    config.write_text("\n".join([*lines, f"ForceCommand {command}", ""]))
    master = bare_repository(tmp_path / "x.git")
    with serving(server), pytest.raises(MaoError) as caught:
        check_remote(context_for(tmp_path, ssh_dir=server.key_dir), server.url(master))
    assert (caught.value.code, words in caught.value.detail) == (code, True), caught.value.detail
    assert caught.value.next


@pytest.mark.parametrize(
    "name", ["reftable", "shallow clone", "sha256", "bad config file", "dubious ownership"]
)
def test_unsupported_error_ignores_the_path(tmp_path: Path, name: str) -> None:
    path = tmp_path / name / "the repository is shallow.git"
    assert unsupported_error(f"failed to open '{path}/HEAD': Input/output error", str(path), path) is None
    with pytest.raises(MaoError) as caught:
        check_remote(context_for(tmp_path), str(path))
    assert caught.value.code == "dataset-unreachable"
