"""File names that some program or library misinterprets are preserved everywhere."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

import mao_git
from mao_datamgmt.browse import datasets
from mao_datamgmt.browse.archive import open_archive, write_archive
from mao_datamgmt.browse.diff import difference
from mao_datamgmt.context import Context
from mao_datamgmt.evidence.export import gather
from mao_datamgmt.evidence.export import pack as pack_crate
from mao_datamgmt.evidence.verify import verify_evidence
from mao_datamgmt.settings import About
from mao_shared.errors import InvalidInput
from mao_shared.host.data_dir import Workspace
from mao_shared.states import RunPhase, StepPhase
from tests.git.test_checkout import raw_object, tree
from tests.support.git import git
from tests.vote.repo import commit, data_of, new_repository, vote

from .conftest import Api
from .world import NODE, run_of, step, working

NAMES = [
    *("a\\b", "d\\e/f\\g", "a\\..b", "\\lead", "trail\\", "data\\2026.csv", "C:\\x"),
    *("two\nlines", "tab\tbed", "\x01control", "\x7f", "return\r", "next\u0085", "\u2028line"),
    *("-rf", "dot.", "blank ", " lead", "...", "..a", ".hidden", "~", "#x", "!x", "%41"),
    *("con", "aux.txt", "NUL", "com1", "C:x", ":x", "git~2", "a?b#c", "*", "{a,b}"),
    *("\u00e9", "e\u0301", "README", "readme", "stra\u00dfe", "strasse", "a\u00a0b", "\u202eback"),
    *("x" * 255, "\u00fc" * 127, "[red]x[/red]", "'quoted\"", "$HOME", "`id`", "a;b", "<b>"),
]


def tool(workspace: Workspace) -> None:
    for name in NAMES:
        path = workspace.data / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"what {name} holds")


def expected() -> dict[str, str]:
    return {name: f"what {name} holds" for name in NAMES}


def in_tar(context: Context) -> dict[str, str]:
    source = open_archive(context, "data", NODE, "")
    with tarfile.open(fileobj=io.BytesIO(b"".join(write_archive(source, "tar.gz")))) as packed:
        files = {member.name: packed.extractfile(member) for member in packed.getmembers()}
        return {
            name.partition("/")[2]: file.read().decode() for name, file in files.items() if file is not None
        }


def in_zip(context: Context) -> dict[str, str]:
    source = open_archive(context, "data", NODE, "")
    with zipfile.ZipFile(io.BytesIO(b"".join(write_archive(source, "zip")))) as packed:
        assert all(
            member.create_system == 3 for member in packed.infolist()
        )  # Unix: no backslash separates names
        return {
            member.filename.partition("/")[2]: packed.read(member).decode() for member in packed.infolist()
        }


async def test_names_odd_ones_are_kept_everywhere(tmp_path: Path) -> None:
    async with working(tmp_path) as world:
        run = run_of("run-0", step("collect", "data", world.master))
        done = await world.whole(run, tool)
        assert done.phase is StepPhase.SUCCEEDED, done.error
        context = world.manager.context
        assert in_tar(context) == in_zip(context) == expected()
        assert all(
            b"".join(datasets.open_content(context, "data", NODE, name).pieces).decode() == text
            for name, text in expected().items()
        )
        listed = {file.path for file in datasets.list_files(context, "data", NODE, "", 1000, None).items}
        assert listed == {name.partition("/")[0] for name in NAMES}
        first = git(world.master, "rev-list", "--max-parents=0", NODE)
        compared = difference(context, "data", first, NODE, "", limit=1000)
        assert {file.path for file in compared.files} == set(NAMES)
        work = tmp_path / "scientist"
        git(tmp_path, "clone", "-q", "-b", "ground-truth", str(world.master), str(work))
        assert {name: (work / name).read_bytes().decode() for name in NAMES} == expected()
        ended = (await world.get("run-0")).record.model_copy(update={"phase": RunPhase.SUCCEEDED})
        crate = b"".join(pack_crate(gather(context, ended.id, ended, About(person="p"))))
        with zipfile.ZipFile(io.BytesIO(crate)) as packed:
            outputs = {n.removeprefix("0-collect/output/") for n in packed.namelist() if "/output/" in n}
        assert outputs == set(NAMES)
        assert verify_evidence(context, ended.id, ended).faults == []
        source = ("data", str(world.master), "ground-truth")
        await world.begin(run_of("run-1", step("use", "data", world.master, source), after=1))
        await world.phase("run-1", StepPhase.READY)
        for folder in (world.workspace("run-1").data, world.workspace("run-1").input):
            assert {name: (folder / name).read_bytes().decode() for name in NAMES} == expected()


def test_names_odd_ones_reach_ground_truth(tmp_path: Path) -> None:
    clone = new_repository(tmp_path / "r.git")
    voted = vote(clone, dict.fromkeys(("n1", "n2", "n3"), expected()))
    assert data_of(clone, voted) == expected()
    differing = {name: f"{text}, says n3" for name, text in expected().items()}
    voted = vote(clone, {"n1": expected(), "n2": expected(), "n3": differing})
    assert data_of(clone, voted) == expected()


@pytest.mark.parametrize(
    "path", ["..", ".git", "..\\x", "a\\..\\..\\x", ".. \\x", "a\\.git\\config", "\udce9"]
)
@pytest.mark.parametrize("above", ["", "d"])
def test_archive_refuses_names_it_cannot_hold(tmp_path: Path, path: str, above: str) -> None:
    clone = new_repository(tmp_path / "r.git")
    name = path.encode(errors="surrogateescape")
    made = tree(clone.path, ("100644", name, raw_object(clone.path, "blob", b"x")))
    if above:
        made = tree(clone.path, ("40000", above.encode(), made))
    with pytest.raises(InvalidInput) as caught:
        clone.archive_entries(made, "")
    assert caught.value.code == "dataset-unsafe"
    assert repr(mao_git.paths.printable(f"{above}/{path}".lstrip("/"))) in caught.value.detail
    caught.value.detail.encode()


def test_round_lists_refused_names(tmp_path: Path) -> None:
    clone = new_repository(tmp_path / "r.git")
    voted = vote(clone, {node: {"..\\x": "1", "a\\b": "2"} for node in ("n1", "n2")})
    assert data_of(clone, voted) == {"a\\b": "2"}
    (left_out,) = [file for file in voted.evidence.files if file.path == "..\\x"]
    assert left_out.notes == ["left out: its name could lead out of a folder"]


def test_merge_trees_keeps_odd_names(tmp_path: Path) -> None:
    clone = new_repository(tmp_path / "r.git")
    base = commit(clone, {"f": "1"})
    ours, theirs = commit(clone, {"f": "1", **expected()}, base), commit(clone, {"f": "2"}, base)
    merged = clone.merge_trees(base, ours, theirs)
    assert set(clone.list_paths(merged)) == {"f", *NAMES}


def test_names_odd_ones_over_http(api: Api, tmp_path: Path) -> None:
    master = Path(api.post("/bare-repo/init", json={"name": "data"}).json()["master"])
    odd = tree(
        master, *sorted(("100644", name.encode(), blob(master, name)) for name in NAMES if "/" not in name)
    )
    listed = tree(master, ("100644", b"caf\xe9", blob(master, "x")), ("40000", b"odd", odd))
    git(master, "update-ref", "refs/heads/ground-truth", git(master, "commit-tree", "-m", "x", listed))
    assert api.put("/datasets/data", json={"name": "data", "master": str(master)}).status_code == 200
    for name in NAMES:
        if "/" not in name:
            answer = api.get("/datasets/data/file", params={"path": f"odd/{name}"})
            assert (answer.status_code, answer.text) == (200, f"what {name} holds"), name
    names = {item["name"] for item in api.get("/datasets/data/files").json()["items"]}
    assert names == {"caf\\xe9", "odd"}
    refused = api.get("/datasets/data/archive")
    assert (refused.status_code, refused.json()["code"]) == (422, "dataset-unsafe")
    assert "caf\\\\xe9" in refused.json()["detail"]
    assert api.get("/datasets/data/archive", params={"path": "odd"}).status_code == 200


def blob(repo: Path, name: str) -> str:
    return raw_object(repo, "blob", f"what {name} holds".encode())
