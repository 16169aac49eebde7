"""Malicious files are refused or read within limits, and other work continues."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import mao_git
from mao_datamgmt.evidence.steps import find_steps
from mao_datamgmt.external.commit import append_to_day
from mao_datamgmt.external.inbox import make_entry
from mao_git import Clone, objects
from mao_shared.errors import NotFound
from mao_shared.keys import runs_prefix
from mao_shared.models.external import ExternalWrite
from mao_shared.states import StepPhase
from mao_shared.web.dependencies import Attempt
from mao_vote.records import NotRecords, RecordFormat, load
from tests.support.git import git

from .world import BEGIN, NODE, push_as_stranger, run_of, step, working, writes

ENDLESS = "[" * 20_000


async def test_hostile_output_invalid_json_line_does_not_stop_external_data(tmp_path: Path) -> None:
    async with working(tmp_path) as world:
        await world.store.create(
            "/mao/registry/datasets/data",
            json.dumps({"name": "data", "master": str(world.master), "external": ["t"]}).encode(),
        )
        path = f"external__t__{BEGIN:%Y-%m-%d}.jsonl"
        await world.whole(run_of("run-0", step("collect", "data", world.master)), writes(**{path: ENDLESS}))
        await world.manager.ingest.take(ExternalWrite(key="t", value=1), Attempt(BEGIN, "0" * 8))
        await world.manager.ingest.commit_all()
        assert (await world.manager.ingest.state("data")).waiting == 0
        assert ENDLESS in git(
            world.manager.context.data.clone("data"), "show", f"{NODE}:{path.replace('__', '/')}"
        )


@pytest.mark.parametrize("forged", ["../../elsewhere", "..", "../logs", "a/../../b", "-v", "x" * 201, "a b"])
async def test_hostile_output_run_id_with_path_gets_no_folder(forged: str, tmp_path: Path) -> None:
    """A run's id names folders that this process creates and deletes."""
    async with working(tmp_path) as world:
        document = run_of("run-0", step("collect", "forged", world.master)).model_dump(mode="json")
        key = f"{runs_prefix(NODE)}{forged}"
        await world.store.create(key, json.dumps(document | {"id": forged}).encode())
        done = await world.whole(run_of("run-1", step("collect", "data", world.master)), writes(f="1"))
        assert done.phase is StepPhase.SUCCEEDED
        assert not world.workspace(forged).root.exists()
        told = [c.subject for c in world.manager.conditions.current() if c.name == "record-unreadable"]
        assert told == [key]


def test_hostile_output_value_is_found_in_an_older_part_of_its_day() -> None:
    entry = make_entry("t", 1, BEGIN, "00000000", 1000)
    day = entry.day
    parts = {f"{day}.jsonl": entry.line + b"\n", f"{day}.2.jsonl": b"{}\n"}
    read = {f"external/t/{name}": data for name, data in parts.items()}
    assert append_to_day("external/t", day, parts, [entry], read.__getitem__) is None


def test_hostile_output_id_inside_another_value_is_ignored() -> None:
    entry = make_entry("t", 1, BEGIN, "00000000", 1000)
    other = make_entry("t", entry.id, BEGIN, "11111111", 1000)
    added = append_to_day(
        "external/t", entry.day, [f"{entry.day}.jsonl"], [entry], lambda _: other.line + b"\n"
    )
    assert added is not None
    assert added[2] == [entry]


def test_hostile_output_long_names_above_many_values_are_refused() -> None:
    with pytest.raises(NotRecords, match="too long names"):
        load(json.dumps({"a" * 1_000_000: [1] * 1500}).encode(), RecordFormat.JSON)


def test_hostile_output_columns_behind_a_line_break_in_the_heading_are_refused() -> None:
    with pytest.raises(NotRecords, match="several lines"):
        load(('"a\n"' + "," * 100_000 + "\n").encode(), RecordFormat.CSV)


def test_hostile_output_compressed_blob_is_read_in_chunks(tmp_path: Path) -> None:
    mao_git.init_bare(tmp_path / "r.git")
    data = bytes(8 << 20)
    oid = git(tmp_path / "r.git", "hash-object", "-w", "--stdin", feed="\0" * len(data))
    loose = tmp_path / "r.git" / "objects" / oid[:2] / oid[2:]
    assert loose.stat().st_size < objects.LARGE_SIZE
    assert objects.is_large(loose)
    sizes = [len(piece) for piece in objects._inflated(loose)]
    assert sum(sizes) == len(data)
    assert max(sizes) <= objects.READ_SIZE


async def test_hostile_output_pointer_of_no_lfs_dataset_cannot_block_it(tmp_path: Path) -> None:
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 5\n"
    async with working(tmp_path) as world:
        bad = await world.whole(
            run_of("run-0", step("collect", "data", world.master)),
            writes(**{".gitattributes": "* filter=lfs\n", "trick": pointer}),
        )
        assert bad.phase is StepPhase.FAILED
        assert bad.error is not None
        assert "Git LFS" in bad.error.detail
        plain = await world.whole(
            run_of("run-1", step("collect", "data", world.master), after=1), writes(trick=pointer)
        )
        assert plain.phase is StepPhase.SUCCEEDED, plain.error
        again = await world.whole(
            run_of("run-2", step("collect", "data", world.master), after=2), writes(a="1")
        )
        assert again.phase is StepPhase.SUCCEEDED, again.error


async def test_hostile_output_evidence_with_parent_paths_is_ignored(tmp_path: Path) -> None:
    async with working(tmp_path) as world:
        await world.whole(run_of("run-0", step("collect", "data", world.master)), writes(a="1"))
        message = git(world.master, "log", "-1", "--format=%B", NODE).replace("collect", "x/../../evil")
        forged = git(
            world.master, "commit-tree", f"{NODE}^{{tree}}", "-F", "-", feed=message.replace("run-0", "run-9")
        )
        git(world.master, "update-ref", "refs/heads/stranger", forged)
        push_as_stranger(tmp_path, world.master, "stranger", b="2")
        clone = Clone.open(world.manager.context.data.clone("data"))
        clone.fetch(world.manager.context.access)
        with pytest.raises(NotFound):
            find_steps(world.manager.context, "run-9", None)


@pytest.mark.parametrize(
    "path", ["../a", "a/../b", "a\\..\\b", "..\\a", "d/a\\.. \\b", ".git/config", "a//b", "./a"]
)
def test_hostile_output_paths_that_lead_out(path: str) -> None:
    assert mao_git.paths.leads_out(path)


def test_hostile_output_paths_that_do_not() -> None:
    assert not any(
        mao_git.paths.leads_out(path) for path in ("a", "a/b.c/d", "..a", "a..b", "a\\b", "...", "a\\..b")
    )
