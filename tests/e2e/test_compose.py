"""The seed's README against `make up`: real containers for every service, tools and etcd."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import main_job
from tests.support.compose import ComposeNode
from tests.support.git import git
from tests.support.main_job import Names

pytestmark = [pytest.mark.docker, pytest.mark.compose]
SERVICES = {"registry", "scheduler", "runner", "datamgmt", "gateway"}


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComposeNode]:
    node = ComposeNode(tmp_path_factory.mktemp("ssh"))
    try:
        yield node.start()
    finally:
        node.stop()


def test_the_readmes_calls_bring_the_output_to_the_remote(node: ComposeNode, tool_image: str) -> None:
    names = Names("seed-tool", "seed-data")
    master = node.http.post("/bare-repo/init", json={"name": "seed-remote"}).json()["master"]

    main_job.register(node, names, tool_image, master)
    run = main_job.run_by_hand(node, names)

    assert run["phase"] == "succeeded", run
    snapshot = run["steps"][0]["snapshot"]
    remote = node.host_path(master)
    trusted = ("-c", f"safe.directory={remote}")
    assert git(remote, *trusted, "rev-parse", node.name) == snapshot
    assert git(remote, *trusted, "rev-parse", "ground-truth^{tree}") == git(
        remote, *trusted, "rev-parse", f"{snapshot}^{{tree}}"
    )


def test_a_schedule_runs_its_ticks(node: ComposeNode, tool_image: str) -> None:
    names = Names("cron-tool", "cron-data")
    master = node.http.post("/bare-repo/init", json={"name": "cron-remote"}).json()["master"]
    main_job.register(node, names, tool_image, master)

    job = main_job.next_second_cron(node, names)
    runs = main_job.ended_runs_of(node, job["id"], 2)
    node.maoctl("job", "remove", job["id"], "--yes")

    assert "succeeded" in {run["phase"] for run in runs}
    assert len({run["scheduled_for"] for run in runs}) == len(runs)


def test_only_gateway_and_federation_are_published_and_only_on_loopback(node: ComposeNode) -> None:
    published = {
        service: [binding for ports in item["NetworkSettings"]["Ports"].values() for binding in ports or []]
        for service, item in node.containers().items()
    }
    public = {service: bindings for service, bindings in published.items() if bindings}
    assert set(public) == {"gateway", "federation-etcd"}
    assert {each["HostIp"] for bindings in public.values() for each in bindings} == {"127.0.0.1"}


def _sees(item: dict[str, Any], target: str) -> list[dict[str, Any]]:
    return [mount for mount in item["Mounts"] if mount["Destination"] == target]


def test_socket_and_keys_are_where_they_belong_and_nobody_is_root(node: ComposeNode) -> None:
    containers = node.containers()
    assert {name for name, item in containers.items() if _sees(item, "/var/run/docker.sock")} == {"runner"}
    keys = {name: _sees(item, "/etc/mao/ssh") for name, item in containers.items()}
    assert {name for name, mounts in keys.items() if mounts} == {"datamgmt"}
    assert not keys["datamgmt"][0]["RW"]
    agreed = {name: _sees(item, "/var/lib/mao-agreements") for name, item in containers.items()}
    assert {name: mounts[0]["RW"] for name, mounts in agreed.items() if mounts} == {
        "registry": True,
        "runner": False,
    }
    assert set(containers) == SERVICES | {"etcd", "federation-etcd"}
    for item in containers.values():
        assert item["Config"]["User"] not in ("", "0", "root")
        assert item["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped"
        assert item["Config"]["Healthcheck"]


def test_a_killed_service_is_started_again_and_the_run_ends_once(
    node: ComposeNode, gated_tool_image: str
) -> None:
    names = Names("gated", "gated-data")
    master = node.http.post("/bare-repo/init", json={"name": "gated-remote"}).json()["master"]
    main_job.register(node, names, gated_tool_image, master)
    run = node.http.post("/pipeline/run", json={"name": names.tool}).json()
    node.wait_run(run["id"], lambda r: r["steps"][0]["phase"] == "running")

    os.kill(node.containers()["runner"]["State"]["Pid"], 9)
    data = node.host_path(f"/var/lib/mao/workspaces/{run['id']}/0.1/data")
    (data / "gate").write_text("open")
    ended = node.wait_run(run["id"])

    assert ended["phase"] == "succeeded", ended
    remote = node.host_path(master)
    log = git(remote, "-c", f"safe.directory={remote}", "log", "--format=%B", node.name)
    assert log.count(f"MAO-Run: {run['id']}") == 1


def test_a_federation_is_created_and_collecting_goes_on(node: ComposeNode, tool_image: str) -> None:
    node.maoctl("federation", "create", "lab")

    [member] = json.loads(node.maoctl("federation", "list", "-o", "json").stdout)
    assert (member["node"], member["state"], member["seat"]) == (node.name, "joined", "voter")
    names = Names("federated", "federated-data")
    master = node.http.post("/bare-repo/init", json={"name": "federated-remote"}).json()["master"]
    main_job.register(node, names, tool_image, master)
    assert main_job.run_by_hand(node, names)["phase"] == "succeeded"
    assert names.tool in node.maoctl("tool", "get", "-o", "name").stdout
