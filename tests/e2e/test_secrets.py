"""A canary secret and a canary variable are searched in all that a node writes and serves."""

from __future__ import annotations

import base64
import json
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from mao_shared.store import open_store
from tests.support.git import bare_repository, git
from tests.support.node import NativeNode, native_node
from tests.support.waiting import eventually

pytestmark = [pytest.mark.docker, pytest.mark.etcd]

FILE_CANARY = "canary-of-a-file/+=81&"
VARIABLE_CANARY = "canary-of-a-variable/+=82&"
PLAIN_CANARY = "canary-of-env/+=83&"
SHOW = (
    'for text in "$(cat /run/secrets/file-token)" "$TOKEN" "$PGPASS"; do '
    'echo "$text"; echo -n "$text" | base64; echo -n "user:$text" | base64; done; '
    'echo "gave $TOKEN and $(cat /run/secrets/file-token)" >&2; date > /usr/src/app/data/when; '
    'echo "https://x:$TOKEN@example.org/?key=$(cat /run/secrets/file-token)"; exit ${CODE:-0}'
)


def spellings(text: str) -> list[bytes]:
    """What to search for: as it is, URL-encoded, as base64 alone and within a longer text."""
    raw = text.encode()
    inner = [base64.b64encode(b"\0" * offset + raw)[4:-8] for offset in range(3)]
    return [raw, quote(text).encode(), quote(text, safe="").encode(), base64.b64encode(raw), *inner]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NativeNode]:
    with native_node(tmp_path_factory.mktemp("secrets")) as node:
        yield node


def set_secret(node: NativeNode, folder: Path, name: str, value: str) -> None:
    (folder / name).write_text(value)
    node.maoctl("secret", "set", name, "--from-file", str(folder / name))
    (folder / name).unlink()


async def dump_etcd(node: NativeNode) -> bytes:
    store = open_store(node.etcd)
    try:
        return b"\n".join(entry.key.encode() + entry.value for entry in (await store.list("/")).entries)
    finally:
        await store.close()


def served(node: NativeNode, run_id: str, dataset: str, pipeline: str) -> dict[str, bytes]:
    """Return the bodies of all GET calls that the API document lists, with the names of this test."""
    names = {"id": run_id, "run_id": run_id, "pipeline": pipeline, "node": node.name}
    bodies = {}
    document = node.http.get("/openapi.json").json()
    for path, methods in document["paths"].items():
        if "get" not in methods or path.startswith(("/git/", "/events", "/runs/{id}/events")):
            continue
        own = {**names, "name": dataset if path.startswith(("/datasets", "/registry/datasets")) else pipeline}
        url = path
        for name, value in own.items():
            url = url.replace(f"{{{name}}}", value)
        if "{" not in url:
            bodies[url] = node.http.get(url).content
    return bodies


@pytest.mark.parametrize("code", [0, 3])
async def test_canaries_are_nowhere_but_in_the_container(
    node: NativeNode, tool_image: str, tmp_path: Path, code: int
) -> None:
    tool, dataset = f"canary-{code}", f"canary-data-{code}"
    remote = bare_repository(tmp_path / "remote.git")
    set_secret(node, tmp_path, "file-token", FILE_CANARY)
    set_secret(node, tmp_path, "variable-token", VARIABLE_CANARY)
    options = ["--secret", "file-token", "--secret", "TOKEN=variable-token"]
    options += ["--env", f"PGPASS={PLAIN_CANARY}", "--env", f"CODE={code}"]
    node.maoctl("tool", "add", tool, "lab", tool_image, "--command", f"sh -c '{SHOW}'", *options)
    node.maoctl("dataset", "add", dataset, str(remote))
    refused = node.maoctl("pipeline", "init", tool, dataset, check=False)
    assert "secret file-token" in refused.stderr
    agree = ["--agree", "secret file-token", "--agree", "secret variable-token"]
    node.maoctl("pipeline", "init", tool, dataset, *agree)
    done = node.maoctl("pipeline", "run", tool, "--wait", "-o", "json", check=False)
    run = json.loads(done.stdout)
    assert run["phase"] == ("failed" if code else "succeeded"), run
    crate = tmp_path / "crate.zip"
    if not code:
        node.maoctl("run", "export", run["id"], "--out", str(crate))

    log = node.maoctl("run", "logs", run["id"]).stdout
    assert log.count("•••") >= 8, log
    found = {
        "etcd": await dump_etcd(node),
        "the node's own log": "\n".join(node.log).encode(),
        "maoctl run get": node.maoctl("run", "get", run["id"], "-o", "json").stdout.encode(),
        **served(node, run["id"], dataset, tool),
    }
    for path in node.data_dir.rglob("*"):
        if path.is_file():
            found[str(path)] = path.read_bytes()
    secrets = [one for text in (FILE_CANARY, VARIABLE_CANARY) for one in spellings(text)]
    published = {"log": log.encode()}
    if not code:
        with zipfile.ZipFile(crate) as archive:
            published |= {name: archive.read(name) for name in archive.namelist()}
        published["commits"] = git(remote, "log", "-p", "--all").encode()
        assert b"PGPASS" in published["commits"]
    for what, content in (found | published).items():
        assert not [one for one in secrets if one in content], what
    for what, content in published.items():
        plain = [one for one in spellings(PLAIN_CANARY) if one in content]
        # A plain variable is no secret, and not masked in a log.
        assert not plain or what.rpartition("/")[2] in ("log", "log.txt"), f"{what}: {plain}"


def inspected(run_id: str) -> str:
    """Return what the engine tells of a run's containers."""
    ask = f"docker inspect --type container $(docker ps -q --filter label=mao.run={run_id})"
    return subprocess.run(["sh", "-c", ask], capture_output=True, text=True).stdout or "[]\n"


async def test_secrets_of_a_file_are_not_in_what_the_engine_tells(
    node: NativeNode, tool_image: str, tmp_path: Path
) -> None:
    remote = bare_repository(tmp_path / "remote.git")
    set_secret(node, tmp_path, "inspected", FILE_CANARY)
    wait = "sh -c 'until [ -e /usr/src/app/data/gate ]; do sleep 0.1; done'"
    node.maoctl("tool", "add", "inspected", "lab", tool_image, "--command", wait, "--secret", "inspected")
    node.maoctl("dataset", "add", "inspected", str(remote))
    node.maoctl("pipeline", "init", "inspected", "inspected", "--agree", "secret inspected")
    run_id = node.maoctl("pipeline", "run", "inspected", "-o", "name").stdout.strip().removeprefix("run/")
    await eventually(lambda: inspected(run_id) != "[]\n")
    told = inspected(run_id)
    assert "/run/secrets" in told
    assert FILE_CANARY not in told
    node.maoctl("run", "cancel", run_id)
    node.wait_run(run_id)
