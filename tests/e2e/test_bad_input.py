"""Bad input is refused with a status, a problem code and a next step, and loses no data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.git import bare_repository
from tests.support.node import NativeNode

pytestmark = [pytest.mark.docker, pytest.mark.etcd]


@dataclass(frozen=True)
class Bad:
    """A call that must be refused, and the expected answer."""

    path: str
    body: dict[str, Any] | str
    status: int
    code: str


TOOL = {"author": "me", "image": "busybox"}
NAMES = {"slash": "a/b", "dots": "..", "space": "a b", "300 characters": "x" * 300, "empty": ""}
CALLS = {
    "unknown tool": Bad("/pipeline/init", {"tool": "nobody", "dataset": "known"}, 422, "unknown-tool"),
    "unknown dataset": Bad("/pipeline/init", {"tool": "known", "dataset": "nowhere"}, 422, "unknown-dataset"),
    "unknown pipeline": Bad("/pipeline/run", {"name": "nobody"}, 404, "unknown-pipeline"),
    "duplicate tool": Bad("/registry/tools", {"name": "known", **TOOL}, 409, "already-exists"),
    "duplicate dataset": Bad("/registry/datasets", {"name": "known", "master": "/x"}, 409, "already-exists"),
    "malformed cron": Bad("/pipeline/run", {"name": "known", "cron": "61 * * * *"}, 422, "cron-invalid"),
    "seconds not declared": Bad(
        "/pipeline/run", {"name": "known", "cron": "* * * * * *"}, 422, "cron-seconds-not-declared"
    ),
    "31 February": Bad("/pipeline/run", {"name": "known", "cron": "0 0 31 2 *"}, 422, "cron-never"),
    "missing image": Bad("/pipeline/init", {"tool": "imageless", "dataset": "known"}, 422, "image-not-found"),
    "dataset that does not exist": Bad(
        "/pipeline/init", {"tool": "homeless", "dataset": "gone"}, 422, "dataset-unreachable"
    ),
    "ext:: remote": Bad(
        "/registry/datasets", {"name": "evil", "master": "ext::sh -c id"}, 422, "dataset-url-refused"
    ),
    "not JSON": Bad("/registry/tools", "name=x", 400, "body-not-json"),
    **{
        f"name with {what}": Bad("/registry/tools", {"name": name, **TOOL}, 422, "invalid-input")
        for what, name in NAMES.items()
    },
}


@pytest.fixture(scope="module")
def prepared(node: NativeNode, tool_image: str, tmp_path_factory: pytest.TempPathFactory) -> NativeNode:
    """Register tool, dataset and pipeline `known`, a tool with no image and a dataset with no repository."""
    remote = bare_repository(tmp_path_factory.mktemp("known") / "remote.git")
    node.maoctl("tool", "add", "known", "me", tool_image, "", "", "x")
    node.maoctl("tool", "add", "homeless", "me", tool_image, "", "", "x")
    node.maoctl("tool", "add", "imageless", "me", "mao-test/no-such-image:1", "", "", "x")
    node.maoctl("dataset", "add", "known", str(remote))
    node.maoctl("dataset", "add", "gone", str(remote.with_name("gone.git")), "--unchecked")
    node.maoctl("pipeline", "init", "known", "known")
    return node


@pytest.mark.parametrize("what", CALLS)
def test_bad_input_call_is_refused_with_code_and_next_step(prepared: NativeNode, what: str) -> None:
    bad = CALLS[what]
    content = {"content": bad.body} if isinstance(bad.body, str) else {"json": bad.body}
    headers = {"content-type": "application/json"}

    answer = prepared.http.post(bad.path, headers=headers, **content)

    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (bad.status, bad.code), problem
    assert answer.headers["content-type"].startswith("application/problem+json")
    assert problem["detail"]
    assert problem["next"]


# Created folder by folder: the path fits in the container, where the data folder's path is short.
TOO_LONG = (
    "cd /usr/src/app/data; for i in $(seq 38); do mkdir "
    + "d" * 100
    + " && cd "
    + "d" * 100
    + " || exit 1; done; echo x > f"
)
BAD_TOOLS = {
    "exits 1": ("echo broken >&2; exit 1", "tool-failed"),
    "hangs": ("sleep 600", "tool-timed-out"),
    "writes nothing": ("true", "output-missing"),
    "writes beyond the host": (TOO_LONG, "output-refused"),
    "writes a link to /etc/passwd": ("ln -s /etc/passwd /usr/src/app/data/p", "output-refused"),
}


@pytest.mark.parametrize("what", BAD_TOOLS)
def test_bad_input_tool_fails_its_run_with_code_and_next_step(
    prepared: NativeNode, tool_image: str, tmp_path: Path, what: str
) -> None:
    script, code = BAD_TOOLS[what]
    name = "bad-" + what.split()[0] + "-" + what.split()[-1].strip("/").replace("/", "-")
    remote = bare_repository(tmp_path / "remote.git")
    tool = {
        "name": name,
        "author": "me",
        "image": tool_image,
        "command": ["sh", "-c", script],
        "limits": {"time": 2, "grace": 1},
    }
    assert prepared.http.post("/registry/tools", json=tool).status_code == 201
    prepared.maoctl("dataset", "add", name, str(remote))
    prepared.maoctl("pipeline", "init", name, name)

    done = prepared.maoctl("-o", "json", "pipeline", "run", name, "--wait", check=False)

    assert done.returncode == 7, done.stderr
    run = prepared.http.get("/runs", params={"pipeline": name}).json()["items"][0]
    error = run["steps"][0]["error"]
    assert (run["phase"], error["code"], error["fault"]) == ("failed", code, "tool")
    assert error["detail"]
    assert error["next"]
    logs = prepared.maoctl("run", "logs", run["id"]).stdout
    assert ("broken" in logs) == (what == "exits 1")
