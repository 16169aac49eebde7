"""The provenance in a published commit, and its signature."""

from __future__ import annotations

import asyncio
import hashlib
import subprocess
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from mao_datamgmt.provenance import manifest
from mao_git.ssh_signatures import signing_key
from mao_shared import keys
from mao_shared.commit_messages import read_step_record
from mao_shared.host.data_dir import Workspace
from mao_shared.models import OutputFile, StepRun
from mao_shared.store.memory import MemoryStore
from tests.support.git import git

from .world import NODE, World, push_as_stranger, run_of, settings_for, step, working, writes


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


async def publish(world: World, run_id: str, tool: Any, after: int = 0) -> StepRun:
    run = run_of(run_id, step("collect", "data", world.master), after=after)
    done = await world.whole(run, tool)
    assert done.snapshot is not None, done.error
    return done


def record_of(world: World, commit: str) -> dict[str, Any]:
    record = read_step_record(git(world.master, "log", "-1", "--format=%B", commit))
    assert record is not None
    return record


async def test_step_record_lists_digests(tmp_path: Path) -> None:
    def second(workspace: Workspace) -> None:
        (workspace.data / "a").write_text("11")
        (workspace.data / "same").write_text("same")
        (workspace.data / "gone").unlink()
        (workspace.data / "link").symlink_to("a")

    async with working(tmp_path) as world:
        await publish(world, "run-1", writes(a="1", same="same", gone="x", untouched="y"))
        done = await publish(world, "run-2", second, 1)
        record = record_of(world, NODE)
    assert record["outputs"] == {
        "a": {"size": 2, "sha256": sha256("11")},
        "link": {"size": 1, "sha256": sha256("a")},
        "same": {"size": 4, "sha256": sha256("same")},
    }
    assert record["removed"] == ["gone"]
    assert record["manifest"]["files"] == 3
    assert (record["run"], record["attempt"], record["exit"]["code"]) == ("run-2", 1, 0)
    assert record["output"] == {"dataset": "data", "branch": NODE, "base": done.base_commit}
    assert {"mao", "libgit2"} <= record["versions"].keys()
    assert {"preparing", "running", "publishing"} <= record["times"].keys()


async def test_step_record_of_many_files(tmp_path: Path) -> None:
    files = {f"f{number}": str(number) for number in range(501)}
    async with working(tmp_path) as world:
        await publish(world, "run-1", writes(**files))
        record = record_of(world, NODE)
    lines = sorted(f"{sha256(text)}  {path}\n" for path, text in files.items())
    assert "outputs" not in record
    assert record["manifest"]["sha256"] == sha256("".join(lines))
    assert record["manifest"]["files"] == 501


def test_manifest_agrees_with_sha256sum(tmp_path: Path) -> None:
    (tmp_path / "b").write_text("1")
    (tmp_path / "a").write_text("22")
    printed = subprocess.run(["sha256sum", "b", "a"], cwd=tmp_path, capture_output=True, text=True).stdout
    text = "".join(sorted(printed.splitlines(keepends=True)))
    files = {"b": OutputFile(size=1, sha256=sha256("1")), "a": OutputFile(size=2, sha256=sha256("22"))}
    assert manifest(files) == {"files": 2, "bytes": 3, "sha256": sha256(text)}


# signatures


def make_key(folder: Path, kind: str, *options: str) -> Path:
    path = folder / kind
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", str(path), *options], check=True)
    return path


def verify(repository: Path, commit: str, key: Path) -> None:
    """Verify a commit by git with the federation's allowed signers."""
    allowed = key.with_suffix(".allowed")
    allowed.write_text(f"mao@{NODE} {key.with_suffix('.pub').read_text()}")
    git(repository, "-c", f"gpg.ssh.allowedSignersFile={allowed}", "verify-commit", commit)


def fingerprint(key: Path) -> str:
    printed = subprocess.run(["ssh-keygen", "-l", "-f", str(key)], check=True, capture_output=True)
    return printed.stdout.decode().split()[1]


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
async def test_signing_passes_git_verify_commit(tmp_path: Path, kind: str) -> None:
    key = make_key(tmp_path, kind, *(("-b", "2048") if kind == "rsa" else ()))  # a longer one takes a second
    async with working(tmp_path, signing_key=key) as world:
        done = await publish(world, "run-1", writes(a="1"))
        assert done.snapshot is not None
        verify(world.master, done.snapshot, key)
        assert git(world.master, "fsck", "--strict", "--full") == ""
        [listed] = (await world.manager.commits("data", done.snapshot, 1, None)).items
        assert listed.signing_key == fingerprint(key)


async def test_commit_without_signature_has_no_signing_key(tmp_path: Path) -> None:
    async with working(tmp_path) as world:
        done = await publish(world, "run-1", writes(a="1"))
        [listed] = (await world.manager.commits("data", done.snapshot, 1, None)).items
        assert listed.signing_key is None


def test_signing_key_of_what_is_no_signature() -> None:
    begin, end = "-----BEGIN SSH SIGNATURE-----", "-----END SSH SIGNATURE-----"
    for body in ("", "!", "U1NI", "U1NIU0lHAAAAAf////8=", "x" * 400):
        assert signing_key(f"{begin}\n{body}\n{end}") is None
    assert signing_key("-----BEGIN PGP SIGNATURE-----\nAAAA\n-----END PGP SIGNATURE-----") is None


async def test_signing_of_replayed_commits_and_merges(tmp_path: Path) -> None:
    key = make_key(tmp_path, "ed25519")
    async with working(tmp_path, signing_key=key) as world:
        await publish(world, "run-1", writes(a="1"))

        def while_others_push(workspace: Workspace) -> None:
            (workspace.data / "mine").write_text("2")
            push_as_stranger(tmp_path, world.master, NODE, theirs="3")
            push_as_stranger(tmp_path, world.master, "ground-truth", also="4")

        done = await publish(world, "run-2", while_others_push, 1)
        assert done.snapshot is not None
        assert done.ground_truth not in (None, done.snapshot)
        verify(world.master, done.snapshot, key)
        verify(world.master, "ground-truth", key)


async def test_signers_list_keeps_old_keys(tmp_path: Path) -> None:
    store = MemoryStore()
    allowed = tmp_path / "allowed"
    for kind in ("ed25519", "ecdsa"):
        key = make_key(tmp_path, kind)
        async with working(tmp_path, store, signing_key=key, git_email="a, b") as world:
            done = await publish(world, f"run-{kind}", writes(a=kind))
            public = " ".join(key.with_suffix(".pub").read_text().split()[:2])
            await until(store, public)
            allowed.write_text(await world.manager.signers.allowed())
            git(
                world.master,
                "-c",
                f"gpg.ssh.allowedSignersFile={allowed}",
                "verify-commit",
                done.snapshot or "",
            )
    assert [line.split()[:2] for line in allowed.read_text().splitlines()] == 2 * [
        [f"mao@{NODE}", 'namespaces="git"']
    ]


async def until(store: MemoryStore, words: str) -> None:
    """Wait until the node has announced the key."""
    async with asyncio.timeout(60):
        page = await store.list(keys.signers_prefix())
        if any(words in entry.value.decode() for entry in page.entries):
            return
        async for batch in store.watch(keys.signers_prefix(), after=page.revision):
            if any(event.entry and words in event.entry.value.decode() for event in batch):
                return


def test_signing_key_that_cannot_sign_is_an_invalid_setting(tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "words", "-f", str(locked)], check=True)
    for path, words in [
        (tmp_path / "absent", "cannot be read"),
        (locked, "passphrase"),
        (make_key(tmp_path, "ed25519").with_suffix(".pub"), "not an OpenSSH private key"),
    ]:
        with pytest.raises(ValidationError, match=words):
            settings_for(tmp_path, signing_key=path)
