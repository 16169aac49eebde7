"""A dataset on a real sshd is cloned and pushed; an unknown host key is refused with a clear error."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import main_job
from tests.support.git import bare_repository, git
from tests.support.main_job import Names
from tests.support.node import NativeNode, native_node
from tests.support.sshd import SshServer, ssh_server

pytestmark = [pytest.mark.docker, pytest.mark.etcd, pytest.mark.sshd]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    with ssh_server(tmp_path_factory.mktemp("sshd") / "s") as server:
        yield server


@pytest.fixture(scope="module")
def node(server: SshServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NativeNode]:
    env = {"MAO_SSH_DIR": str(server.key_dir)}
    with native_node(tmp_path_factory.mktemp("node"), name="ssh-node", env=env) as node:
        yield node


def test_ssh_dataset_run_is_pushed(
    node: NativeNode, server: SshServer, tool_image: str, tmp_path: Path
) -> None:
    remote = bare_repository(tmp_path / "remote.git")
    names = Names("ssh-tool", "ssh-data")

    main_job.register(node, names, tool_image, server.url(remote))
    run = main_job.run_once(node, names)

    assert run["phase"] == "succeeded", run
    assert run["steps"][0]["pushed"] is True
    assert git(remote, "rev-parse", node.name) == run["steps"][0]["snapshot"]
    assert git(remote, "rev-parse", "ground-truth^{tree}") == git(
        remote, "rev-parse", f"{node.name}^{{tree}}"
    )


def test_ssh_dataset_unknown_host_key_is_refused_and_nothing_is_enrolled(
    node: NativeNode, server: SshServer, tool_image: str, tmp_path: Path
) -> None:
    remote = bare_repository(tmp_path / "remote.git")
    known_hosts = server.key_dir / "known_hosts"
    known = known_hosts.read_text()
    node.maoctl("tool", "add", "stranger-tool", "me", tool_image, "", "", "x")
    node.maoctl("dataset", "add", "stranger-data", server.url(remote))

    known_hosts.write_text("")
    try:
        answer = node.http.post("/pipeline/init", json={"tool": "stranger-tool", "dataset": "stranger-data"})
    finally:
        known_hosts.write_text(known)

    problem = answer.json()
    assert answer.status_code == 403, problem
    assert problem["code"] == "host-key-unknown"
    assert server.fingerprint() in problem["detail"]
    assert "known_hosts" in problem["next"]
    assert node.http.get("/registry/pipelines/stranger-tool").status_code == 404
    assert git(remote, "branch", "--list") == ""
