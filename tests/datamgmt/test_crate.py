"""A run exported as an RO-Crate, checked by third-party programs and byte by byte."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from mao_datamgmt.evidence import export, verify
from mao_datamgmt.evidence.crate import METADATA
from mao_datamgmt.evidence.verify import verify_evidence
from mao_shared.errors import Conflict, MaoError, NotFound
from mao_shared.models import Exit, Failure, Run
from mao_shared.models.run import Verification
from mao_shared.states import RunPhase, StepPhase
from maoctl.commands.evidence import crate_faults, digests
from tests.support.evidence import rocrate_issues, runcrate_report
from tests.support.git import git

from .world import BEGIN, World, run_of, step, working, writes

SETTINGS: dict[str, Any] = {
    "person_name": "Ada Example",
    "orcid": "0000-0002-1825-0097",
    "organisation": "Example Lab",
    "ror": "https://ror.org/03yrm5c26",
    "licence": "https://creativecommons.org/licenses/by/4.0/",
}
LOG = b"measured\n"


async def succeeded(world: World, run_id: str = "run-1", **files: str) -> Run:
    """Complete a run whose only step publishes files, with its log."""
    path = world.manager.context.data.log(run_id, 0, 1)
    path.parent.mkdir(parents=True)
    path.write_bytes(LOG)
    run = run_of(run_id, step("collect", "data", world.master))
    digest = {"log_bytes": len(LOG), "log_sha256": hashlib.sha256(LOG).hexdigest(), "user": "10001:10001"}
    logged = run.steps[0].model_copy(update=digest)
    await world.whole(run.with_step(0, logged), writes(**(files or {"a.csv": "x\n1\n", "sub__b c.txt": "b"})))
    return await ended(world, run_id, RunPhase.SUCCEEDED)


async def ended(world: World, run_id: str, phase: RunPhase) -> Run:
    return await world.change(run_id, lambda run: run.move(phase, finished_at=BEGIN))


async def two_steps(world: World) -> Run:
    first = step("collect", "data", world.master)
    second = step("derive", "data", world.master, ("data", str(world.master), "node-1"))
    await world.begin(run_of("run-2", first, second))
    await world.run_tool("run-2", writes(a="1"))
    await world.phase("run-2", StepPhase.SUCCEEDED)
    await world.change("run-2", lambda run: run.with_step(1, run.steps[1].move(StepPhase.PREPARING, BEGIN)))
    await world.run_tool("run-2", writes(sum="2"), index=1)
    await world.phase("run-2", StepPhase.SUCCEEDED, index=1)
    return await ended(world, "run-2", RunPhase.SUCCEEDED)


async def failed(world: World) -> Run:
    run = run_of("run-3", step("collect", "data", world.master))
    path = world.manager.context.data.log("run-3", 0, 1)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"no route\n")
    await world.begin(run)
    await world.phase("run-3", StepPhase.READY)
    error = Failure(code="tool-failed", detail="It ended with 3.", fault="tool")

    def fail(run: Run) -> Run:
        one = run.steps[0].move(StepPhase.STARTING, BEGIN).move(StepPhase.RUNNING, BEGIN)
        one = one.move(StepPhase.FAILED, BEGIN, exit=Exit(code=3), error=error)
        return run.with_step(0, one)

    await world.change("run-3", fail)
    return await ended(world, "run-3", RunPhase.FAILED)


def crate_of(world: World, run: Run | None, run_id: str, *, data: bool = True) -> bytes:
    found = export.gather(world.manager.context, run_id, run, world.manager.about, data=data)
    return b"".join(export.pack(found))


def metadata_of(crate: bytes) -> dict[str, Any]:
    with zipfile.ZipFile(io.BytesIO(crate)) as archive:
        assert archive.testzip() is None
        return dict(json.loads(archive.read(METADATA)))


def check(world: World, run: Run | None, run_id: str) -> Verification:
    return verify_evidence(world.manager.context, run_id, run)


def entity(metadata: dict[str, Any], kind: str) -> dict[str, Any]:
    return next(entity_ for entity_ in metadata["@graph"] if entity_["@type"] == kind)


@pytest.mark.evidence
@pytest.mark.parametrize(
    ("make", "settings"), [(succeeded, SETTINGS), (two_steps, SETTINGS), (failed, SETTINGS), (failed, {})]
)
async def test_crate_passes_the_validators_of_others(
    tmp_path: Path, make: Any, settings: dict[str, Any]
) -> None:
    async with working(tmp_path, **settings) as world:
        run = await make(world)
        crate = tmp_path / "crate.zip"
        crate.write_bytes(crate_of(world, run, run.id))
        node = export.metadata(export.gather(world.manager.context, run.id, run, world.manager.about))
    assert rocrate_issues(crate) == ""
    assert run.steps[0].spec.tool in runcrate_report(crate)
    assert list(crate_faults(crate, node)) == []


async def test_crate_names_people_files_and_ids(tmp_path: Path) -> None:
    async with working(tmp_path, **SETTINGS) as world:
        run = await succeeded(world)
        metadata = metadata_of(crate_of(world, run, run.id))
    assert digests(metadata)["0-collect/output/sub/b c.txt"] == (1, hashlib.sha256(b"b").hexdigest())
    assert digests(metadata)["0-collect/log.txt"] == (len(LOG), hashlib.sha256(LOG).hexdigest())
    assert entity(metadata, "Person")["@id"] == "https://orcid.org/0000-0002-1825-0097"
    assert entity(metadata, "Organization")["@id"] == "https://ror.org/03yrm5c26"
    action = entity(metadata, "CreateAction")
    assert f"swh:1:rev:{run.steps[0].snapshot}" in action["identifier"]


async def test_crate_of_a_failed_run_keeps_the_order_of_its_actions_properties(tmp_path: Path) -> None:
    async with working(tmp_path) as world:
        action = entity(metadata_of(crate_of(world, await failed(world), "run-3")), "CreateAction")
        assert list(action) == [
            *("@id", "@type", "name", "description", "agent", "startTime", "endTime", "actionStatus"),
            *("result", "error", "instrument", "containerImage"),
        ]


async def test_crate_of_a_failed_run_has_its_error_and_log(tmp_path: Path) -> None:
    async with working(tmp_path) as world:
        run = await failed(world)
        metadata = metadata_of(crate_of(world, run, run.id))
    action = entity(metadata, "CreateAction")
    assert action["error"] == "tool-failed: It ended with 3."
    assert action["actionStatus"].endswith("FailedActionStatus")
    assert digests(metadata)["0-collect/log.txt"][0] == len("no route\n")


async def test_crate_without_data_has_records_and_logs(tmp_path: Path) -> None:
    async with working(tmp_path) as world:
        run = await succeeded(world)
        crate = crate_of(world, run, run.id, data=False)
    assert digests(metadata_of(crate)).keys() == {"run.json", "0-collect/log.txt"}


async def test_find_steps_of_a_run_not_in_the_store(tmp_path: Path) -> None:
    async with working(tmp_path) as world:
        run = await two_steps(world)
        assert check(world, None, run.id).ok
        steps = metadata_of(crate_of(world, None, run.id))
        assert {"0-collect/output/a", "1-derive/output/sum"} <= digests(steps).keys()
        with pytest.raises(NotFound, match="no-such-run"):
            check(world, None, "no-such-run")


async def test_crate_of_a_run_under_way_is_refused(tmp_path: Path) -> None:
    async with working(tmp_path) as world:
        run = await world.begin(run_of("run-4", step("collect", "data", world.master)))
        with pytest.raises(Conflict, match="has not ended"):
            crate_of(world, run, run.id)


# one flipped byte


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)


async def test_verify_names_every_flipped_byte_in_git(tmp_path: Path) -> None:
    async with working(tmp_path) as world:
        run = await succeeded(world, a="content of a", b="content of b")
        whole = check(world, run, run.id)
        clone = world.manager.context.data.clone("data")
        blob = hashlib.sha1(b"blob 12\0content of b", usedforsecurity=False).hexdigest()
        path = clone / "objects" / blob[:2] / blob[2:]
        good = path.read_bytes()
        for place in range(len(good)):
            flip(path, place)
            found = check(world, run, run.id)
            assert not found.ok, place
            assert (found.faults[0].what, found.faults[0].path) == ("output", "b"), place
            path.write_bytes(good)
    assert (whole.ok, whole.files, whole.bytes) == (True, 3, 24 + len(LOG))


async def test_verify_names_a_flipped_byte_of_the_log(tmp_path: Path) -> None:
    async with working(tmp_path) as world:
        run = await succeeded(world)
        flip(world.manager.context.data.log(run.id, 0, 1), 3)
        found = check(world, run, run.id)
    assert [(fault.what, fault.path) for fault in found.faults] == [("log", "0.1.log")]


@pytest.mark.parametrize(
    ("recorded", "there", "named"),
    [
        ((0, hashlib.sha256(b"").hexdigest()), LOG, {"log"}),  # evidence of a log that was not read
        ((0, None), LOG, {"log"}),
        ((len(LOG), hashlib.sha256(LOG).hexdigest()), b"", {"log"}),
        ((len(LOG), hashlib.sha256(LOG).hexdigest()), LOG + b"more\n", {"log"}),
        ((len(LOG), None), LOG[:-1], {"log"}),
        ((len(LOG), None), LOG, set()),
        ((0, hashlib.sha256(b"").hexdigest()), b"", set()),
    ],
)
async def test_verify_log_against_its_record(
    tmp_path: Path, recorded: tuple[int, str | None], there: bytes, named: set[str]
) -> None:
    async with working(tmp_path) as world:
        run = run_of("run-1", step("collect", "data", world.master))
        logged = run.steps[0].model_copy(update={"log_bytes": recorded[0], "log_sha256": recorded[1]})
        await world.whole(run.with_step(0, logged), writes(a="1"))
        run = await ended(world, "run-1", RunPhase.SUCCEEDED)
        path = world.manager.context.data.log("run-1", 0, 1)
        path.parent.mkdir(parents=True)
        path.write_bytes(there)
        found = check(world, run, run.id)
    assert {fault.what for fault in found.faults} == named
    assert found.ok == (not named)


async def test_verify_names_a_log_that_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(path: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    async with working(tmp_path) as world:
        run = await succeeded(world)
        monkeypatch.setattr(verify, "open_local_file", broken)
        found = check(world, run, run.id)
    assert [(fault.what, fault.path) for fault in found.faults] == [("log", "0.1.log")]


async def test_verify_size_of_the_log_in_the_document_against_the_commit(tmp_path: Path) -> None:
    async with working(tmp_path) as world:
        run = await succeeded(world)
        other = run.steps[0].model_copy(update={"log_bytes": 0, "log_sha256": None})
        found = check(world, run.with_step(0, other), run.id)
    assert [fault.what for fault in found.faults] == ["record"]
    assert "size of the log" in found.faults[0].detail


async def test_verify_lists_a_missing_log_as_unchecked(tmp_path: Path) -> None:
    async with working(tmp_path) as world:
        run = await succeeded(world)
        world.manager.context.data.log(run.id, 0, 1).unlink()
        found = check(world, run, run.id)
    assert found.ok
    assert found.unchecked == ["log of collect: it was removed from the node"]


async def test_crate_check_names_a_flipped_byte(tmp_path: Path) -> None:
    async with working(tmp_path) as world:
        run = await succeeded(world)
        crate = tmp_path / "crate.zip"
        crate.write_bytes(crate_of(world, run, run.id))
        node = export.metadata(export.gather(world.manager.context, run.id, run, world.manager.about))
    with zipfile.ZipFile(crate) as archive:
        info = archive.getinfo("0-collect/output/a.csv")
    flip(crate, info.header_offset + 30 + len(info.filename) + 20 + 1)  # after the head with its zip64 part
    (fault,) = crate_faults(crate, node)
    assert fault.startswith("0-collect/output/a.csv: ")


async def test_crate_check_refuses_a_forged_crate(tmp_path: Path) -> None:
    """Digests and metadata agree with each other, but not with the node's data."""
    async with working(tmp_path) as world:
        run = await succeeded(world, a="true")
        honest = crate_of(world, run, run.id)
        node = metadata_of(honest)
    crate = tmp_path / "crate.zip"
    true, false = (hashlib.sha256(text).hexdigest() for text in (b"true", b"fals"))
    with zipfile.ZipFile(io.BytesIO(honest)) as source, zipfile.ZipFile(crate, "w") as target:
        for name in source.namelist():
            data = source.read(name).replace(true.encode(), false.encode())
            target.writestr(name, b"fals" if name.endswith("output/a") else data)
    assert any(fault.startswith("0-collect/output/a: ") for fault in crate_faults(crate, node))


# a truncated object, which libgit2 would read forever


def cut_short(world: World, name: str, kept: float) -> str:
    """Truncate an object in the dataset's clone and return its id."""
    clone = world.manager.context.data.clone("data")
    oid = git(clone, "rev-parse", name)
    path = clone / "objects" / oid[:2] / oid[2:]
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    return oid


@pytest.mark.parametrize("kept", [0.2, 0.9])
@pytest.mark.parametrize(("name", "path"), [("{}:b", "b"), ("{}^{{tree}}", None)])
async def test_verify_names_an_object_cut_short(
    tmp_path: Path, name: str, path: str | None, kept: float
) -> None:
    async with working(tmp_path) as world:
        run = await succeeded(world, b="content of b")
        oid = cut_short(world, name.format(run.steps[0].snapshot), kept)
        found = check(world, run, run.id)
    assert not found.ok
    assert found.faults[0].path == path
    assert oid[2:] in found.faults[0].detail


async def test_verify_names_a_commit_cut_short(tmp_path: Path) -> None:
    async with working(tmp_path) as world:
        run = await succeeded(world)
        cut_short(world, str(run.steps[0].snapshot), 0.5)
        with pytest.raises(MaoError, match="broken or truncated"):
            check(world, run, run.id)
