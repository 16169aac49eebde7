"""Values of external programs: acknowledged values are kept and committed once; insights of tools."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import mao_git
from mao_datamgmt.external import commit
from mao_datamgmt.external.commit import append_to_day, commit_entries, committed_ids
from mao_datamgmt.external.inbox import InboxEntry
from mao_datamgmt.external.insights import parse_key
from mao_git import Clone
from mao_shared import keys
from mao_shared.commit_messages import read_step_record
from mao_shared.errors import InvalidInput
from mao_shared.models import Dataset, Enrolment, ResolvedStep
from mao_shared.models.external import ExternalWrite, Receipt
from mao_shared.store import Store
from mao_shared.store.memory import MemoryStore
from mao_shared.store.records import dump
from mao_shared.web.dependencies import Attempt
from tests.support.git import bare_repository, file_at, git
from tests.support.waiting import eventually

from .conftest import Api, api_on
from .test_external_inbox import KEY, KINDS, NOON, entry, torn
from .world import BEGIN, NODE, PATIENCE, World, context_for, run_of, step, working, writes


def test_external_day_goes_on_in_another_part_and_holds_each_entry_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(commit, "FULL_PART_BYTES", 100)
    files: dict[str, bytes] = {}

    def write(*entries: InboxEntry) -> None:
        names = [path.rpartition("/")[2] for path in files]
        done = append_to_day("external/k", "2026-01-31", names, list(entries), files.__getitem__)
        if done is not None:
            files[done[0]] = done[1]

    write(entry(1), entry(2))
    write(entry(1), entry(2))
    write(entry(2), entry(3))
    write(entry(3), entry(4))
    assert set(files) == {f"external/k/2026-01-31{part}.jsonl" for part in ("", ".2", ".3")}
    ids = [one for path in sorted(files) for one in committed_ids(files[path])]
    assert sorted(ids) == [entry(number).id for number in (1, 2, 3, 4)]


@pytest.mark.parametrize(("file", "key"), [("external", KEY), ("external", "a/b"), ("external/a", "a/b")])
def test_external_file_in_the_way_of_the_folder_is_not_overwritten(
    tmp_path: Path, file: str, key: str
) -> None:
    context = context_for(tmp_path)
    master = str(bare_repository(tmp_path / "master.git"))
    commit_entries(context, "data", master, [entry(1)])
    clone = Clone.open(context.data.clone("data"))
    blocked = clone.write_tree(clone.tree(None), {file: mao_git.Content(link="x")})
    tip = clone.tip(NODE)
    assert tip is not None
    commit = clone.commit(blocked, [tip], "by a tool\n", context.author())
    assert clone.move_branch(NODE, commit, tip)
    with pytest.raises(InvalidInput, match="is a file"):
        commit_entries(context, "data", master, [replace(entry(2), key=key)])


# torn files and the listener


async def test_external_torn_file_holds_nothing_up_and_is_told(world: World) -> None:
    await send(world, 1)
    made = torn(world.manager.context.data.inbox / "data")
    await send(world, 2)
    await world.manager.ingest.commit_all()
    assert committed(world.manager.context.data.clone("data")) == [1, 2]
    (told,) = world.manager.conditions.current()
    assert (told.name, told.subject) == ("inbox", "data")
    aside = world.manager.context.data.inbox / "data" / ".aside"
    assert str(aside / made["empty"].name) in told.detail
    assert told.next.startswith(f"Inspect it: cat '{aside}")
    shutil.rmtree(aside)
    await world.manager.ingest.commit_all()
    assert world.manager.conditions.current() == []


async def test_external_blocked_key_delays_no_other(tmp_path: Path) -> None:
    async with working(tmp_path, external_batch=3) as world:
        await declare(world.store, world.master, "data", KEY, "wind")
        await send(world, 0, "wind")
        await world.manager.ingest.commit_all()
        clone = Clone.open(world.manager.context.data.clone("data"))
        tip = clone.tip(NODE)
        assert tip is not None
        in_the_way = {f"external/{KEY}": mao_git.Content(link="x")}
        tree = clone.write_tree(clone.tree(tip), in_the_way)
        author = world.manager.context.author()
        commit = clone.commit(tree, [tip], "by a tool\n", author)
        assert clone.move_branch(NODE, commit, tip)
        for number in range(1, 9):
            await send(world, number)
        for number in range(9, 12):
            await send(world, number, "wind")
        await world.manager.ingest.commit_all()
        assert committed(clone.path, "wind") == [0, 9, 10, 11]
        assert (await world.manager.ingest.state("data")).waiting == 8
        (told,) = world.manager.conditions.current()
        assert (told.name, told.subject) == ("inbox", "data")
        assert "is a file" in told.detail


async def test_external_truncated_only_file_is_reported_after_restart(
    tmp_path: Path,
) -> None:
    torn(tmp_path / "node" / "inbox" / "data")
    for _ in range(2):
        async with working(tmp_path) as world:
            await world.manager.ingest.commit_all()
            assert [condition.subject for condition in world.manager.conditions.current()] == ["data"]


async def test_external_values_too_large_to_commit_are_reported(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commit, "MAX_PART_BYTES", 1)
    await send(world, 1)
    await world.manager.ingest.commit_all()
    await send(world, 2)
    await world.manager.ingest.commit_all()
    (told,) = world.manager.conditions.current()
    assert (told.name, told.subject) == ("inbox", "data")
    monkeypatch.undo()
    await world.manager.ingest.commit_all()
    assert world.manager.conditions.current() == []
    assert committed(world.manager.context.data.clone("data")) == [1, 2]


@pytest.mark.parametrize("fault", [ZeroDivisionError("odd"), InvalidInput("no"), RecursionError()])
async def test_external_condition_ends_when_values_are_removed(
    world: World, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    def stumbles(*_: Any) -> None:
        raise fault

    await send(world, 1)
    monkeypatch.setattr("mao_datamgmt.external.ingest.commit_entries", stumbles)
    await world.manager.ingest.commit_all()
    assert "inbox" in {condition.name for condition in world.manager.conditions.current()}
    shutil.rmtree(world.manager.context.data.inbox / "data")
    await world.manager.ingest.commit_all()
    assert world.manager.conditions.current() == []
    assert (await world.manager.ingest.state("data")).failure is None


# the listener at work


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with working(tmp_path) as world:
        await declare(world.store, world.master)
        yield world


async def declare(store: Store, master: Path, name: str = "data", *external: str) -> None:
    record = Dataset(name=name, master=str(master), nodes=[NODE], external=list(external or (KEY,)))
    assert await store.create(keys.registry("datasets", name), dump(record)) is not None


async def send(world: World, number: int, key: str = KEY) -> Receipt:
    attempt = Attempt(NOON + timedelta(microseconds=number), f"{number:08x}")
    return await world.manager.ingest.take(ExternalWrite(key=key, value=number), attempt)


def committed(repository_: Path, key: str = KEY) -> list[int]:
    text = file_at(repository_, f"{NODE}:external/{key}/2026-01-31.jsonl")
    return [json.loads(line)["value"] for line in text.splitlines()]


async def pushed(world: World) -> None:
    tip = git(world.manager.context.data.clone("data"), "rev-parse", NODE)
    await eventually(lambda: tip in git(world.master, "for-each-ref", "--format=%(objectname)"), PATIENCE)


async def test_external_values_are_committed_in_one_batch_with_a_record_and_pushed(world: World) -> None:
    for number in range(3):
        await send(world, number)
    assert (await world.manager.ingest.state("data")).waiting == 3
    await world.manager.ingest.commit_all()
    await pushed(world)
    assert committed(world.master) == [0, 1, 2]
    message = git(world.master, "log", "-1", "--format=%B", NODE)
    assert message.startswith(f"external: 3 values of {KEY} on {NODE}\n")
    record = read_step_record(message + "\n")
    assert record is not None
    assert record["keys"] == {KEY: 3}
    assert (await world.manager.ingest.state("data")).waiting == 0
    await eventually(
        lambda: git(world.master, "rev-parse", "ground-truth") == git(world.master, "rev-parse", NODE),
        PATIENCE,
    )


async def test_external_values_during_a_run_are_both_kept(world: World) -> None:
    run = run_of("run-1", step("collect", "data", world.master))
    await world.begin(run)

    def tool(workspace: Any) -> None:
        writes(result="1")(workspace)

    await send(world, 1)
    await world.manager.ingest.commit_all()
    await world.run_tool(run.id, tool)
    await send(world, 2)
    await world.manager.ingest.commit_all()
    done = await world.until(run.id, lambda run: run.steps[0].snapshot is not None)
    assert done.steps[0].error is None
    await pushed(world)
    assert committed(world.manager.context.data.clone("data")) == [1, 2]
    assert git(world.manager.context.data.clone("data"), "show", f"{NODE}:result") == "1"


async def test_external_kill_between_commit_and_removal_commits_nothing_twice(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await send(world, 1)
    with monkeypatch.context() as patched:
        patched.setattr(world.manager.ingest.inbox, "remove", _disk_fails)
        await world.manager.ingest.commit_all()
    assert "no space" in (await world.manager.ingest.state("data")).failure.detail  # type: ignore[union-attr]
    await send(world, 2)
    await world.manager.ingest.commit_all()
    assert committed(world.manager.context.data.clone("data")) == [1, 2]
    assert (await world.manager.ingest.state("data")).failure is None


def _disk_fails(*_: Any) -> None:
    raise OSError("no space")


async def test_external_uncloneable_dataset_keeps_values_and_reason(tmp_path: Path) -> None:
    async with working(tmp_path) as world:
        await declare(world.store, tmp_path / "absent.git")
        await send(world, 1)
        await world.manager.ingest.commit_all()
        state = await world.manager.ingest.state("data")
        assert (state.waiting, state.failure and state.failure.code) == (1, "dataset-unreachable")
        bare_repository(tmp_path / "absent.git")
        await world.manager.ingest.commit_all()
        assert committed(tmp_path / "node" / "datasets" / "data.git") == [1]


# killed for real


async def serve_until_killed(root: Path, first: int) -> None:
    """Run a data manager that accepts values, prints their numbers, and commits continuously."""
    async with working(root) as world:
        await declare(world.store, world.master)
        number = first
        while True:
            await send(world, number)
            os.write(1, f"{number}\n".encode())
            if number % 3 == 0:
                await world.manager.ingest.commit_all()
            number += 1


# Fork a data manager for each line of input, so that the imports are done only once.
LIVES = """
import asyncio, os, sys
from pathlib import Path
from tests.datamgmt.test_external import serve_until_killed

for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        print(os.getpid(), flush=True)
        asyncio.run(serve_until_killed(Path(sys.argv[1]), int(line)))
    os.waitpid(pid, 0)
    print("ended", flush=True)
"""


@contextmanager
def lives(root: Path) -> Iterator[Callable[[int, int], list[int]]]:
    """Yield a function that runs a data manager and kills it once it has acknowledged enough values.

    It takes the first value and the number of values, and returns all values that were acknowledged.
    """
    with subprocess.Popen(
        ["setpriv", "--pdeathsig=KILL", sys.executable, "-c", LIVES, str(root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        ask, answers = process.stdin, process.stdout

        def live(first: int, after: int) -> list[int]:
            ask.write(f"{first}\n")
            ask.flush()
            pid = int(answers.readline())
            seen = [int(answers.readline()) for _ in range(after)]
            os.kill(pid, signal.SIGKILL)
            return seen + [int(line) for line in iter(answers.readline, "ended\n")]

        yield live


async def test_external_kill_9_loses_nothing_acknowledged_and_commits_nothing_twice(tmp_path: Path) -> None:
    """Torn files are among the values, as after a power cut or a disk fault."""
    acknowledged: list[int] = []
    inbox = tmp_path / "node" / "inbox" / "data"
    with lives(tmp_path) as live:
        for after in (1, 4, 3, 7):
            shutil.rmtree(inbox / ".aside", ignore_errors=True)
            for path in inbox.glob("2020*"):  # those left by the killed process
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
            torn(inbox)
            acknowledged += live(len(acknowledged) * 2 + 1000 * len(acknowledged), after)
    async with working(tmp_path) as world:
        await declare(world.store, world.master)
        await world.manager.ingest.commit_all()
        found = committed(world.manager.context.data.clone("data"))
        assert len(found) == len(set(found))
        assert set(acknowledged) <= set(found)
        assert len(world.manager.ingest.inbox.aside("data")) == len(KINDS)
        git(world.manager.context.data.clone("data"), "fsck", "--strict")


# the HTTP API


def test_external_write_without_a_dataset_for_the_key(api: Api) -> None:
    answer = api.post("/write", json={"key": KEY, "value": 1})
    assert (answer.status_code, answer.json()["code"]) == (404, "external-key-unknown")
    assert f"--key {KEY}" in answer.json()["next"]
    assert api.post("/write", json={"key": "../x", "value": 1}).status_code == 422
    assert api.post("/write", json={"key": KEY}).status_code == 422


def test_external_remotes_check(api: Api, tmp_path: Path) -> None:
    there = api.post("/remotes/check", json={"master": str(bare_repository(tmp_path / "r.git"))})
    assert there.status_code == 200, there.text
    gone = api.post("/remotes/check", json={"master": str(tmp_path / "gone.git")})
    assert (gone.status_code, gone.json()["code"]) == (422, "dataset-unreachable")
    assert gone.json()["detail"] == f"There is no git repository at {tmp_path / 'gone.git'}."
    assert not list((tmp_path / "node" / "datasets").iterdir())


# insights


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("tool", ("tool", None)),
        ("insight/tool/node-2", ("tool", "node-2")),
        ("insights/", (None, None)),
        ("", (None, None)),
    ],
)
def test_external_keys_of_insights(key: str, meant: tuple[str | None, str | None]) -> None:
    assert parse_key(key) == meant


@pytest.mark.parametrize("key", ["a/b/c", "../x", "a b"])
def test_external_no_key_of_insights(key: str) -> None:
    with pytest.raises(InvalidInput):
        parse_key(key)


def test_external_insights_are_read_and_listed(tmp_path: Path) -> None:
    store = MemoryStore()
    with api_on(tmp_path, store) as api:
        master = Path(api.post("/bare-repo/init", json={"name": "data"}).json()["master"])
        work = tmp_path / "work"
        git(tmp_path, "clone", "-q", str(master), str(work))
        for branch, text in (("node-1", '{"mean": 4}'), ("node-2", '{"mean": NaN}')):
            git(work, "checkout", "-q", "--orphan", branch)
            (work / "insights.json").write_text(text)
            git(work, "add", "-A")
            git(work, "commit", "-qm", branch)
            git(work, "push", "-q", "origin", branch)
        api.put("/datasets/data", json={"name": "data", "master": str(master)})
        api.run(enrol(store, "probe", master))
        found = api.post("/read", json={"key": "probe"}).json()
        assert (found["key"], found["dataset"], found["value"]) == ("probe/node-1", "data", {"mean": 4})
        assert api.post("/read", json={"dataset": "data"}).json()["value"] == {"mean": 4}
        bad = api.post("/read", json={"key": "probe/node-2"})
        assert (bad.status_code, bad.json()["code"]) == (422, "insights-invalid")
        assert api.post("/read", json={"key": "other"}).json()["code"] == "insights-not-found"
        assert api.post("/read", json={}).json()["code"] == "insights-key-missing"
        items = api.post("/inspect", json={}).json()["items"]
        assert [(item["key"], item.get("value")) for item in items] == [
            ("probe/node-1", {"mean": 4}),
            ("probe/node-2", None),
        ]
        assert "not JSON" in items[1]["problem"]


async def enrol(store: Store, tool: str, master: Path) -> None:
    spec: ResolvedStep = step(tool, "data", master).spec
    record = Enrolment(pipeline="p", node=NODE, steps=[spec], pipeline_revision=1, enrolled_at=BEGIN)
    assert await store.create(keys.enrolments_prefix(NODE) + "p", dump(record)) is not None
