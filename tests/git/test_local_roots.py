"""The folders of this machine that may hold remotes are checked by their real paths, at each use."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

import mao_git
from mao_datamgmt.datasets.clones import check_remote, ensure_clone, follow_new_master, sync_clone
from mao_shared.errors import Forbidden, InvalidInput
from mao_shared.states import StepPhase
from tests.datamgmt.world import NODE, context_for, run_of, runs_on, settings_for, step, working, writes
from tests.support.git import bare_repository, git
from tests.support.waiting import eventually


@pytest.fixture
def allowed(tmp_path: Path) -> Path:
    (tmp_path / "allowed").mkdir()
    return tmp_path / "allowed"


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """Make a repository that the node can open, in a folder that is not allowed."""
    path = bare_repository(tmp_path / "secret" / "r.git")
    work = tmp_path / "work"
    git(tmp_path, "clone", "-q", str(path), str(work))
    (work / "f").write_text("secret")
    git(work, "add", "-A")
    git(work, "commit", "-qm", "secret")
    git(work, "push", "-q", "origin", "HEAD:ground-truth")
    return path


def _to_the_repository(allowed: Path, secret: Path) -> str:
    (allowed / "r.git").symlink_to(secret)
    return str(allowed / "r.git")


def _by_a_folder_above(allowed: Path, secret: Path) -> str:
    (allowed / "d").symlink_to(secret.parent)
    return str(allowed / "d" / "r.git")


def _by_a_git_file(allowed: Path, secret: Path) -> str:
    (allowed / "r").mkdir()
    (allowed / "r/.git").write_text(f"gitdir: {secret}\n")
    return str(allowed / "r")


def _by_alternates(allowed: Path, secret: Path) -> str:
    path = bare_repository(allowed / "r.git")
    (path / "objects/info/alternates").write_text(f"{secret}/objects\n")
    return str(path)


def _by_relative_alternates(allowed: Path, secret: Path) -> str:
    path = bare_repository(allowed / "r.git")
    (path / "objects/info/alternates").write_text("../../../secret/r.git/objects\n")
    return str(path)


def _by_a_common_folder(allowed: Path, secret: Path) -> str:
    path = bare_repository(allowed / "r.git")
    (path / "commondir").write_text(f"{secret}\n")
    return str(path)


def _by_linked_objects(allowed: Path, secret: Path) -> str:
    path = bare_repository(allowed / "r.git")
    (path / "objects/pack").rmdir()
    (path / "objects/pack").symlink_to(secret / "objects/pack")
    return str(path)


def _by_linked_references(allowed: Path, secret: Path) -> str:
    path = bare_repository(allowed / "r.git")
    (path / "refs/heads").rmdir()
    (path / "refs/heads").symlink_to(secret / "refs/heads")
    return str(path)


WAYS_ROUND: list[Callable[[Path, Path], str]] = [
    lambda _, secret: str(secret),
    lambda _, secret: f"file://{secret}",
    lambda _, secret: f"file://localhost{secret}",
    lambda _, secret: f"FILE://{secret}",
    lambda _, secret: f"file://{secret.parent}/%72.git",
    lambda _, secret: f"/{secret}/",
    lambda allowed, secret: f"{allowed}x/../{secret.parent.name}/r.git",
    lambda allowed, _: f"file://{allowed}/%2e%2e/secret/r.git",
    _to_the_repository,
    _by_a_folder_above,
    _by_a_git_file,
    _by_alternates,
    _by_relative_alternates,
    _by_a_common_folder,
    _by_linked_objects,
    _by_linked_references,
]


@pytest.mark.parametrize("way", range(len(WAYS_ROUND)))
def test_local_remote_outside_is_not_used(tmp_path: Path, allowed: Path, secret: Path, way: int) -> None:
    context = context_for(tmp_path, local_remotes=str(allowed))
    url = WAYS_ROUND[way](allowed, secret)
    before = git(secret, "for-each-ref")
    for use in (
        lambda: ensure_clone(context, "data", url),
        lambda: sync_clone(context, "data", url),
        lambda: check_remote(context, url),
    ):
        with pytest.raises((Forbidden, InvalidInput)) as caught:
            use()
        assert caught.value.code in ("remote-not-allowed", "dataset-url-refused")
        assert caught.value.next
    if caught.value.code == "remote-not-allowed":
        assert "MAO_LOCAL_REMOTES=" in str(caught.value.next)
    assert not context.data.clone("data").exists()
    assert git(secret, "for-each-ref") == before


@pytest.mark.parametrize("url", ["r.git", "./r.git", "~/r.git", "ext::sh -c id", "host:r.git", "fd::3"])
def test_local_remote_needs_an_absolute_path(tmp_path: Path, url: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        check_remote(context_for(tmp_path), url)
    assert caught.value.code == "dataset-url-refused"


def test_local_remote_ignores_a_link_made_later(tmp_path: Path, allowed: Path, secret: Path) -> None:
    """The path was allowed when the dataset was registered."""
    context = context_for(tmp_path, local_remotes=str(allowed))
    path = bare_repository(allowed / "r.git")
    clone = ensure_clone(context, "data", str(path))
    path.rename(allowed / "away")
    path.symlink_to(secret)
    before = git(secret, "for-each-ref")
    tip = clone.tip(NODE)
    assert tip is not None
    uses: list[Callable[[], object]] = [
        lambda: clone.fetch(context.access),
        lambda: clone.push({NODE: tip}, context.access),
        lambda: clone.default_branch(context.access),
        lambda: clone.fetch_lfs(tip, context.access),
    ]
    for use in uses:
        with pytest.raises(Forbidden) as caught:
            use()
        assert caught.value.code == "remote-not-allowed"
        assert str(secret.parent) in str(caught.value.next)
    assert git(secret, "for-each-ref") == before


def test_local_remote_outside_is_refused_as_new_master(tmp_path: Path, allowed: Path, secret: Path) -> None:
    context = context_for(tmp_path, local_remotes=str(allowed))
    path = bare_repository(allowed / "r.git")
    clone = ensure_clone(context, "data", str(path))
    with pytest.raises(Forbidden):
        follow_new_master(context, "data", str(secret))
    assert clone.url == str(path)


@pytest.mark.parametrize("how", ["path", "link", "root by a link", "file URL", "slash", "shared objects"])
def test_local_remote_inside_is_used(tmp_path: Path, allowed: Path, how: str) -> None:
    other = tmp_path / "other"
    other.mkdir()
    path = bare_repository(allowed / "r.git")
    urls = {"file URL": f"file://{path}", "slash": f"{path}/", "link": str(allowed / "l.git")}
    (allowed / "l.git").symlink_to(path)
    (tmp_path / "root").symlink_to(allowed)
    if how == "shared objects":
        (path / "objects/info/alternates").write_text(f"{bare_repository(other / 'o.git')}/objects\n")
    roots = os.pathsep.join(map(str, (other, tmp_path / "root" if how == "root by a link" else allowed)))
    clone = ensure_clone(context_for(tmp_path, local_remotes=roots), "data", urls.get(how, str(path)))
    assert git(path, "rev-parse", NODE) == clone.tip(NODE)


def test_local_remote_of_the_node_needs_no_setting(tmp_path: Path) -> None:
    context = context_for(tmp_path, local_remotes="")
    path = context.data.bare("own")
    mao_git.init_bare(path)
    ensure_clone(context, "data", str(path))
    assert git(path, "rev-parse", NODE)


@pytest.mark.parametrize("value", ["srv/git", "~/git", "/srv:git"])
def test_local_remotes_setting_takes_absolute_folders(tmp_path: Path, value: str) -> None:
    with pytest.raises(ValidationError, match="is not an absolute path"):
        settings_for(tmp_path, local_remotes=value)


async def test_local_remote_outside_after_an_upgrade_keeps_commits(tmp_path: Path) -> None:
    """Prepare a dataset whose remote the previous version used, with a run in progress."""
    master = bare_repository(tmp_path / "elsewhere" / "r.git")
    async with working(tmp_path) as world:
        await world.whole(run_of("run-0", step("collect", "data", master)), writes(a="0"))
        store = world.store
        await world.begin(run_of("run-1", step("collect", "data", master), after=1))
        await world.phase("run-1", StepPhase.READY)
    async with working(tmp_path, store, local_remotes="") as world:
        await world.run_tool("run-1", writes(a="1"))
        assert (await world.phase("run-1", StepPhase.SUCCEEDED)).pushed is False
        done = await world.whole(run_of("run-2", step("collect", "data", master), after=2), writes(a="2"))
        assert (done.phase, done.pushed) == (StepPhase.SUCCEEDED, False)
        (told,) = world.manager.conditions.current()
        assert (told.name, told.subject) == ("remote", "data")
        assert f"{master.parent}" in told.next
        assert "MAO_LOCAL_REMOTES=" in told.next
        status = await world.manager.status("data")
        assert (status.outbox.state, status.outbox.waiting) == ("refused", 2)
        assert runs_on(master) == ["run-0"]
    async with working(tmp_path, store, local_remotes=str(master.parent)) as world:
        await eventually(lambda: runs_on(master) == ["run-2", "run-1", "run-0"])
