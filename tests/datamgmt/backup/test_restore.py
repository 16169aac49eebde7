"""Backup and restore of a node on a memory store: complete, refused, and continued after a kill."""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from mao_datamgmt.backup import restore
from mao_datamgmt.backup.archive import ArchiveWriter, Header, verify_backup
from mao_datamgmt.backup.collect import NodePaths, node_paths
from mao_datamgmt.backup.restore import RestoreResult, restore_backup
from mao_datamgmt.backup.take import PARTIAL, BackupResult, backup_name, backups_in, prune, take_backup
from mao_shared import keys
from mao_shared.errors import Conflict, InvalidInput, MaoError
from mao_shared.host.data_dir import RESTORING, Workspace, check_restore_finished, process_lock
from mao_shared.models.node import Restored
from mao_shared.settings import ServiceSettings
from mao_shared.states import StepPhase
from mao_shared.store import Check, Records, Store, Write
from mao_shared.store.memory import MemoryStore
from tests.datamgmt.world import BEGIN, NODE, Tool, run_of, settings_for, step, working
from tests.support.git import file_at, git


class DyingStore(MemoryStore):
    """A store that raises `Killed` at its n-th write, before or after the write."""

    def __init__(self, at: int, *, done: bool) -> None:
        super().__init__()
        self.left, self._done = at, done

    async def transact(self, checks: Sequence[Check], writes: Sequence[Write]) -> int | None:
        self.left -= 1
        if self.left == 0:
            if self._done:
                await super().transact(checks, writes)
            raise Killed
        return await super().transact(checks, writes)


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the code under test catches it."""


def writing(name: str) -> Tool:
    def tool(workspace: Workspace) -> None:
        (workspace.data / name).write_text(name)

    return tool


async def entries(store: Store) -> dict[str, bytes]:
    return {entry.key: entry.value for entry in (await store.list("/mao")).entries}


def files(root: Path) -> dict[str, bytes]:
    skipped = {"git-home", "worktrees", "replaced", RESTORING, "restored-settings.json"}
    found = {}
    for path in sorted(root.rglob("*")):
        inside = path.relative_to(root)
        if inside.parts[0] in skipped or path.suffix == ".lock" or not path.is_file():
            continue
        found[inside.as_posix()] = path.read_bytes()
    return found


async def backed_up(root: Path, target: Path) -> tuple[MemoryStore, BackupResult]:
    """Back up a node with a pushed and an unpushed commit, a value in the inbox, keys and agreements."""
    store = MemoryStore()
    async with working(root, store) as world:
        made = run_of("run-1", step("one", "data", world.master))
        await world.whole(made, writing("x"))
        world.master.rename(root / "away.git")
        made = run_of("run-2", step("one", "data", world.master), after=1)
        ended = await world.whole(made, writing("y"))
        assert not ended.pushed
        await world.until_gone("run-1")
        await world.until_gone("run-2")
        (root / "away.git").rename(world.master)
    node = root / "node"
    for name, text in {
        "secret.key": "key",
        "inbox/data/1.json": "{}",
        "agreements/p.json": "{}",
        "federation/client.pem": "pem",
        "federation/etcd/member/db": "of the federation's etcd",
        "logs/run-1/0.1.log": "said",
        "unheard-of/by/this/version": "kept",
        "etcd/member/db": "the node's own",
        "workspaces/run-0/0.1/data/old": "of a failed run",
    }.items():
        path = node / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    waiting = run_of("run-3", step("one", "data", world.master), after=2)
    exited = waiting.steps[0].model_copy(update={"phase": StepPhase.PUBLISHING})
    await Records(store, keys.runs_prefix(NODE), type(waiting)).create("run-3", waiting.with_step(0, exited))
    output = node / "workspaces/run-3/0.1/data"
    output.mkdir(parents=True)
    (output / "new").write_text("not committed yet")
    (output / "link").symlink_to("new")
    lease = await store.grant(60)
    await store.create(keys.member(NODE), b"{}", lease=lease)
    await store.create(keys.enrolment(NODE, "p"), b"{}")
    await store.create(keys.store_identity(NODE), b"word")
    await store.create(keys.enrolment("node-2", "p"), b"another's")
    taken = await take_backup(NODE, store, places(root), target, {"MAO_NODE": NODE, "HOME": "/"})
    return store, taken


def places(root: Path) -> NodePaths:
    return node_paths(settings_for(root))


async def put_back(
    root: Path, store: Store, archive: Path | None, *, replace: bool = False, **settings: Any
) -> RestoreResult:
    assert archive is not None
    known: ServiceSettings = settings_for(root, **settings)
    return await restore_backup(known, store, places(root), archive, replace=replace)


async def test_restore_brings_everything_back(tmp_path: Path) -> None:
    old, taken = await backed_up(tmp_path, tmp_path)
    before = files(tmp_path / "node")
    shutil.rmtree(tmp_path / "node")
    new = MemoryStore()
    await put_back(tmp_path, new, taken.path)
    after = files(tmp_path / "node")
    left_out = ("federation/etcd/", "etcd/", "workspaces/run-0/", "workspaces/run-2/")
    wanted = {name: content for name, content in before.items() if not name.startswith(left_out)}
    assert after == wanted
    assert (tmp_path / "node/workspaces/run-3/0.1/data/link").readlink() == Path("new")
    assert json.loads((tmp_path / "node/restored-settings.json").read_text()) == {"MAO_NODE": NODE}
    stored, known = await entries(new), await entries(old)
    changed = {keys.restored(NODE), keys.run(NODE, "run-3")}
    others = {keys.member(NODE), keys.enrolment("node-2", "p")}
    assert {k: v for k, v in stored.items() if k not in changed} == {
        k: v for k, v in known.items() if k not in others | changed
    }
    clone = tmp_path / "node/datasets/data.git"
    git(clone, "fsck", "--strict")
    assert git(clone, "rev-list", "--count", f"refs/remotes/origin/{NODE}..refs/heads/{NODE}") == "1"
    for path in (tmp_path / "node").rglob("*"):
        assert path.is_symlink() or path.suffix == ".lock" or path.stat().st_mode & 0o077 == 0, path


async def test_restore_then_push_and_publish(tmp_path: Path) -> None:
    _, taken = await backed_up(tmp_path, tmp_path)
    shutil.rmtree(tmp_path / "node")
    new = MemoryStore()
    await put_back(tmp_path, new, taken.path)
    async with working(tmp_path, new) as world:
        await world.phase("run-3", StepPhase.SUCCEEDED)
    names = git(world.master, "log", "--format=%(trailers:key=MAO-Run,valueonly,separator=)", NODE)
    assert [name for name in names.split() if name] == ["run-3", "run-2", "run-1"]
    assert file_at(world.master, f"{NODE}:new") == "not committed yet"


@pytest.mark.parametrize("done", [True, False])
async def test_restore_killed_at_any_write_continues(tmp_path: Path, *, done: bool) -> None:
    _, taken = await backed_up(tmp_path, tmp_path)
    shutil.rmtree(tmp_path / "node")
    whole = MemoryStore()
    await put_back(tmp_path, whole, taken.path)
    wanted, kept = await entries(whole), files(tmp_path / "node")
    writes = 0
    while True:
        shutil.rmtree(tmp_path / "node")
        writes += 1
        store = DyingStore(writes, done=done)
        try:
            await put_back(tmp_path, store, taken.path)
        except Killed:
            with pytest.raises(Conflict, match="has not finished"):
                check_restore_finished(tmp_path / "node")
            await put_back(tmp_path, store, taken.path)
        else:
            break
        found = await entries(store)
        assert found.keys() == wanted.keys()
        assert files(tmp_path / "node") == kept
        check_restore_finished(tmp_path / "node")
    assert writes > 4


async def test_restore_killed_at_any_file_continues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, taken = await backed_up(tmp_path, tmp_path)
    shutil.rmtree(tmp_path / "node")
    await put_back(tmp_path, MemoryStore(), taken.path)
    wanted, write = files(tmp_path / "node"), restore._write
    killed = 0
    while True:
        shutil.rmtree(tmp_path / "node")
        store, left = MemoryStore(), killed

        def dying(*args: Any) -> str:
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed
            return write(*args)

        with monkeypatch.context() as patch:
            patch.setattr(restore, "_write", dying)
            try:
                await put_back(tmp_path, store, taken.path)
            except Killed:
                assert await entries(store) == {}
            else:
                break
        await put_back(tmp_path, store, taken.path)
        assert files(tmp_path / "node") == wanted
        killed += 1
    assert killed > 15


async def test_restore_needs_replace_when_not_empty(tmp_path: Path) -> None:
    store, taken = await backed_up(tmp_path, tmp_path)
    before, known = files(tmp_path / "node"), await entries(store)
    with pytest.raises(Conflict) as caught:
        await put_back(tmp_path, store, taken.path)
    assert (caught.value.code, "--replace" in (caught.value.next or "")) == ("node-not-empty", True)
    assert files(tmp_path / "node") == before
    assert await entries(store) == known

    (tmp_path / "node/datasets/data.git/only-here").write_text("x")
    done = await put_back(tmp_path, store, taken.path, replace=True)
    [aside] = {path for path in done.aside if path.parent.parent == tmp_path / "node"}
    assert (aside / "datasets/data.git/only-here").read_text() == "x"
    assert "run-3" in (aside / "store.jsonl").read_text()
    assert not (tmp_path / "node/datasets/data.git/only-here").exists()
    assert (await entries(store))[keys.enrolment("node-2", "p")] == b"another's"
    assert await Records(store, keys.restored(NODE), Restored).get("") is not None


async def test_restore_needs_replace_when_the_store_is_not_empty(tmp_path: Path) -> None:
    store, taken = await backed_up(tmp_path, tmp_path)
    shutil.rmtree(tmp_path / "node")
    with pytest.raises(Conflict, match="the store's") as caught:
        await put_back(tmp_path, store, taken.path)
    assert caught.value.code == "node-not-empty"


async def test_restore_refuses_another_node(tmp_path: Path) -> None:
    _, taken = await backed_up(tmp_path, tmp_path)
    shutil.rmtree(tmp_path / "node")
    with pytest.raises(Conflict) as caught:
        await put_back(tmp_path, MemoryStore(), taken.path, node="node-9")
    assert caught.value.code == "other-node"
    assert f"MAO_NODE={NODE}" in (caught.value.next or "")
    assert not (tmp_path / "node").exists()


async def test_restore_refuses_a_running_node(tmp_path: Path) -> None:
    _, taken = await backed_up(tmp_path, tmp_path)
    shutil.rmtree(tmp_path / "node")
    for service in ("runner", "datamgmt"):
        with process_lock(tmp_path / "node", service), pytest.raises(Conflict) as caught:
            await put_back(tmp_path, MemoryStore(), taken.path)
        assert caught.value.code == "node-running"
    path = tmp_path / "s.sock"
    with socket.socket(socket.AF_UNIX) as served:
        served.bind(str(path))
        served.listen()
        with pytest.raises(Conflict) as caught:
            await put_back(tmp_path, MemoryStore(), taken.path, scheduler_url=f"unix://{path}")
    assert caught.value.code == "node-running"


async def test_restore_of_a_damaged_backup_changes_nothing(tmp_path: Path) -> None:
    _, taken = await backed_up(tmp_path, tmp_path)
    assert taken.path is not None
    shutil.rmtree(tmp_path / "node")
    taken.path.write_bytes(taken.path.read_bytes()[:-100])
    with pytest.raises(InvalidInput):
        await put_back(tmp_path, MemoryStore(), taken.path)
    assert not (tmp_path / "node").exists()


async def test_restore_after_an_unfinished_one(tmp_path: Path) -> None:
    _, first = await backed_up(tmp_path, tmp_path / "first")
    second = await take_backup(NODE, MemoryStore(), places(tmp_path), tmp_path / "second", {})
    shutil.rmtree(tmp_path / "node")
    store = DyingStore(2, done=True)
    with pytest.raises(Killed):
        await put_back(tmp_path, store, first.path)
    with pytest.raises(Conflict) as caught:
        await put_back(tmp_path, store, second.path)
    assert caught.value.code == "restore-unfinished"
    await put_back(tmp_path, store, second.path, replace=True)
    assert keys.run(NODE, "run-1") not in await entries(store)
    check_restore_finished(tmp_path / "node")


async def test_take_backup_replaces_no_file_and_is_private(tmp_path: Path) -> None:
    _, taken = await backed_up(tmp_path, tmp_path / "b")
    assert taken.path is not None
    assert taken.path.stat().st_mode & 0o777 == 0o600
    content = taken.path.read_bytes()
    with pytest.raises(MaoError) as caught:
        await take_backup(NODE, MemoryStore(), places(tmp_path), tmp_path / "b", {})
    assert caught.value.code == "backup-exists"
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(MaoError) as caught:
        await take_backup(NODE, MemoryStore(), places(tmp_path), tmp_path / "dangling", {})
    assert caught.value.code == "backup-exists"
    assert taken.path.read_bytes() == content
    with pytest.raises(MaoError) as caught:
        await take_backup(NODE, MemoryStore(), places(tmp_path), tmp_path / "no" / "folder", {})
    assert caught.value.code == "backup-folder-missing"
    assert not list(tmp_path.glob(f"{PARTIAL}*"))


@pytest.mark.parametrize("inside", ["node", "node/datasets", "node/agreements", "link"])
async def test_take_backup_refuses_a_folder_inside(tmp_path: Path, inside: str) -> None:
    for name in ("datasets", "agreements"):
        (tmp_path / "node" / name).mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "node")
    with pytest.raises(InvalidInput) as caught:
        await take_backup(NODE, MemoryStore(), places(tmp_path), tmp_path / inside, {})
    assert caught.value.code == "backup-inside"


async def test_take_backup_follows_links_of_folders(tmp_path: Path) -> None:
    node, elsewhere = tmp_path / "node", tmp_path / "elsewhere"
    node.mkdir()
    elsewhere.mkdir()
    (elsewhere / "0.1.log").write_text("said")
    (elsewhere / "link").symlink_to("/etc/passwd")
    os.mkfifo(elsewhere / "fifo")
    (node / "logs").symlink_to(elsewhere)
    with socket.socket(socket.AF_UNIX) as served:
        served.bind(str(elsewhere / "socket"))
    await take_backup(NODE, MemoryStore(), places(tmp_path), tmp_path / "b", {})
    _, manifest = verify_backup(tmp_path / "b")
    assert [name for name in manifest.files if name.startswith("data/")] == ["data/logs/0.1.log"]
    assert manifest.links == {}


@pytest.mark.parametrize("name", ["logs/run-1", "datasets/data.git", "unheard-of/by"])
async def test_take_backup_names_unreadable_files(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = tmp_path / "node" / name / "closed"
    closed.mkdir(parents=True)
    if name.endswith(".git"):
        (closed.parent / "objects").mkdir()
        (closed.parent / "HEAD").touch()
    scandir = os.scandir

    def refusing(path: Any) -> Any:  # as for a user who is not root
        if Path(path) == closed:
            raise PermissionError(errno.EACCES, "Permission denied", str(closed))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(MaoError) as caught:
        await take_backup(NODE, MemoryStore(), places(tmp_path), tmp_path / "b", {})
    assert (caught.value.code, str(closed) in caught.value.detail) == ("backup-failed", True)
    assert f"Let user {os.geteuid()}" in (caught.value.next or "")
    assert not (tmp_path / "b").exists()


async def test_take_backup_ignores_lost_and_found(tmp_path: Path) -> None:
    _, taken = await backed_up(tmp_path, tmp_path)
    shutil.rmtree(tmp_path / "node")
    folders = [tmp_path / "node" / folder for folder in (".", "datasets", "logs", "agreements", "federation")]
    for folder in folders[:1]:
        (folder / "lost+found").mkdir(parents=True)
    store = MemoryStore()
    await put_back(tmp_path, store, taken.path)
    for folder in folders[1:]:
        (folder / "lost+found").mkdir()
    for folder in folders:
        (folder / "lost+found/#12").touch()
    again = await take_backup(NODE, store, places(tmp_path), tmp_path / "again", {})
    assert again.path is not None
    assert [name for name in verify_backup(again.path)[1].files if "lost+found" in name] == []


async def test_take_backup_follows_links_of_clones(tmp_path: Path) -> None:
    _, before = await backed_up(tmp_path, tmp_path)
    (tmp_path / "node/datasets/data.git").rename(tmp_path / "roomy.git")
    (tmp_path / "node/datasets/data.git").symlink_to(tmp_path / "roomy.git")
    taken = await take_backup(NODE, MemoryStore(), places(tmp_path), tmp_path / "b", {})
    assert before.path is not None
    assert taken.path is not None
    clone = "data/datasets/data.git/"
    known = {
        name: said for name, said in verify_backup(before.path)[1].files.items() if name.startswith(clone)
    }
    found = {
        name: said for name, said in verify_backup(taken.path)[1].files.items() if name.startswith(clone)
    }
    assert found == known != {}


async def test_take_backup_names_an_unusable_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refusing(path: Any) -> Any:  # as for a user who may not enter the folder above
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_dir", refusing)
    with pytest.raises(MaoError) as caught:
        await take_backup(NODE, MemoryStore(), places(tmp_path), tmp_path / "b" / "c", {})
    assert caught.value.code == "backup-failed"
    assert f"user {os.geteuid()}" in (caught.value.next or "")


@pytest.mark.parametrize(
    "name",
    [
        "data/etcd/member/wal/0.wal",
        "data/.restore/store.jsonl",
        f"data/{RESTORING}",
        "data/run/registry.sock",
        "data/node.lock",
        "federation/etcd.yaml",
        "data/federation/etcd.yaml",
        "federation/etcd/member/snap/db",
        "agreements/.new-p.json",
    ],
)
async def test_restore_of_a_forged_backup(tmp_path: Path, name: str) -> None:
    with (tmp_path / "b").open("wb") as file:
        writer = ArchiveWriter(file)
        header = Header(node=NODE, mao="1", taken_at=BEGIN, revision=1)
        writer.add_bytes("mao-backup.json", header.model_dump_json().encode())
        writer.add_bytes("store.jsonl", b"")
        writer.add_bytes(name, b"x")
        writer.close()
    with pytest.raises(InvalidInput, match="which does not belong in a backup"):
        await put_back(tmp_path, MemoryStore(), tmp_path / "b")
    assert not (tmp_path / "node").exists()


@pytest.mark.parametrize(
    "name", ["data/agreements/p.json", "data/federation/ca.pem", "data/federation", "data/logs/r/etcd"]
)
def test_restore_of_a_backup_with_other_paths(tmp_path: Path, name: str) -> None:
    assert places(tmp_path).may_restore(name)


@pytest.mark.parametrize("kind", ["missing", "folder"])
async def test_restore_refuses_before_it_changes_anything(tmp_path: Path, kind: str) -> None:
    if kind == "folder":
        (tmp_path / "b").mkdir()
    with pytest.raises(MaoError) as caught:
        await put_back(tmp_path, MemoryStore(), tmp_path / "b")
    assert caught.value.code == {"missing": "backup-missing", "folder": "backup-unreadable"}[kind]
    assert not (tmp_path / "node").exists()


async def test_take_backup_refuses_an_unknown_node(tmp_path: Path) -> None:
    store = MemoryStore()
    await store.create(keys.enrolment("other", "p"), b"{}")
    with pytest.raises(MaoError) as caught:
        await take_backup(NODE, store, places(tmp_path), tmp_path / "b", {})
    assert caught.value.code == "node-unknown"
    assert "MAO_NODE=other" in (caught.value.next or "")
    assert not (tmp_path / "b").exists()


def test_prune_removes_the_oldest_of_this_node(tmp_path: Path) -> None:
    names = [backup_name(NODE, BEGIN + timedelta(days=day)) for day in range(4)]
    others = [backup_name("node-12", BEGIN), "notes.txt", f"mao-{NODE}-yesterday.tar.gz", f"x{names[0]}"]
    for name in (*names, *others):
        (tmp_path / name).touch()
    assert [path.name for path in prune(tmp_path, NODE, 2, BEGIN + timedelta(days=4))] == names[:2]
    assert {path.name for path in tmp_path.iterdir()} == {*names[2:], *others}
    assert [path.name for _, path in backups_in(tmp_path, NODE)] == names[2:]
