"""The original README's commands against `make up`, with real containers for services, tools and etcd."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from bench import processes
from tests.support import main_job
from tests.support.browser import REBOUND, attacks, read_as_visitor, visit
from tests.support.compose import ComposeNode
from tests.support.docker import Engine
from tests.support.etcd import key_revisions
from tests.support.git import git
from tests.support.main_job import Names
from tests.support.node import REPO
from tests.support.users import NOBODY, SOMEBODY, status_of

pytestmark = [pytest.mark.docker, pytest.mark.compose]
SERVICES = {"registry", "scheduler", "runner", "datamgmt", "gateway"}


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComposeNode]:
    node = ComposeNode(tmp_path_factory.mktemp("ssh"), MAO_LOCAL_USERS=f"daemon,{SOMEBODY}")
    try:
        yield node.start()
    finally:
        node.stop()


def test_compose_readmes_calls_bring_output_to_remote(node: ComposeNode, tool_image: str) -> None:
    names = Names("seed-tool", "seed-data")
    master = node.http.post("/bare-repo/init", json={"name": "seed-remote"}).json()["master"]

    main_job.register(node, names, tool_image, master)
    run = main_job.run_once(node, names)

    assert run["phase"] == "succeeded", run
    snapshot = run["steps"][0]["snapshot"]
    remote = node.host_path(master)
    trusted = ("-c", f"safe.directory={remote}")
    assert git(remote, *trusted, "rev-parse", node.name) == snapshot
    assert git(remote, *trusted, "rev-parse", "ground-truth^{tree}") == git(
        remote, *trusted, "rev-parse", f"{snapshot}^{{tree}}"
    )


def test_compose_schedule_runs_its_ticks(node: ComposeNode, tool_image: str) -> None:
    names = Names("cron-tool", "cron-data")
    master = node.http.post("/bare-repo/init", json={"name": "cron-remote"}).json()["master"]
    main_job.register(node, names, tool_image, master)

    job = main_job.schedule_every_two_seconds(node, names)
    runs = main_job.ended_runs_of(node, job["id"], 2)
    node.maoctl("job", "remove", job["id"], "--yes")

    assert "succeeded" in {run["phase"] for run in runs}
    assert len({run["scheduled_for"] for run in runs}) == len(runs)


def test_compose_tool_gets_its_secrets(node: ComposeNode, tool_image: str) -> None:
    value = "canary-of-compose"
    master = node.http.post("/bare-repo/init", json={"name": "secret-remote"}).json()["master"]
    answer = node.http.put("/secrets/token", json={"value": value})
    assert (answer.status_code, value in answer.text) == (201, False)
    script = "cat /run/secrets/token; echo $TOKEN; wc -c < /run/secrets/token > /usr/src/app/data/size"
    refs = [{"secret": "token"}, {"secret": "token", "env": "TOKEN"}]
    tool = {"name": "secretive", "image": tool_image, "command": ["sh", "-c", script], "secrets": refs}
    for path, body in (
        ("/registry/tools", tool),
        ("/registry/datasets", {"name": "secretive", "master": master}),
        ("/pipeline/init", {"tool": "secretive", "dataset": "secretive", "agree": ["secret token"]}),
    ):
        answer = node.http.post(path, json=body, timeout=60)
        assert answer.is_success, answer.text

    run = node.http.post("/pipeline/run", json={"name": "secretive"}).json()
    ended = node.wait_run(run["id"])
    assert ended["phase"] == "succeeded", ended
    remote = node.host_path(master)
    trusted = ("-c", f"safe.directory={remote}")
    assert git(remote, *trusted, "show", f"{node.name}:size") == str(len(value))
    assert node.http.get(f"/runs/{run['id']}/logs").text == "••••••\n"
    mounts = {mount["Destination"]: mount["Source"] for mount in node.containers()["runner"]["Mounts"]}
    folder = Path(mounts["/run/mao-secrets"]) / "files"
    assert (folder.stat().st_uid, folder.stat().st_mode & 0o777) == (10001, 0o700)
    assert list(folder.iterdir()) == []


def test_compose_publishes_only_gateway_and_federation_on_loopback(node: ComposeNode) -> None:
    containers = node.running()
    published = {
        service: [binding for ports in item["NetworkSettings"]["Ports"].values() for binding in ports or []]
        for service, item in containers.items()
    }
    public = {service: bindings for service, bindings in published.items() if bindings}
    assert set(public) == {"federation-etcd"}
    assert {b["HostIp"] for bindings in public.values() for b in bindings} == {"127.0.0.1"}
    for service, item in containers.items():
        loopback = {f"127.0.0.1:{node.port}", f"[::1]:{node.port}"}  # `localhost` may resolve to either
        expected = loopback if service == "gateway" else set()
        assert listening(item["State"]["Pid"]) == expected, service


def listening(pid: int) -> set[str]:
    """Return the listening TCP addresses of a container, without those of Docker's DNS server."""
    inside = ["nsenter", f"--net=/proc/{pid}/ns/net", "ss", "-Hlntp"]
    printed = subprocess.run(inside, capture_output=True, text=True, check=True).stdout
    pids = {str(child) for child in processes.tree(pid)}
    lines = [line for line in printed.splitlines() if pids & set(re.findall(r"pid=(\d+)", line))]
    return {line.split()[3] for line in lines}


def test_compose_web_page_reads_nothing_and_changes_nothing(node: ComposeNode, tmp_path: Path) -> None:
    before = key_revisions(node.etcd)
    report = visit(attacks(node.port) + attacks(node.port + 1) + attacks(node.port + 2), tmp_path)
    assert report["got"] == []
    assert len(report["tried"]) > 500
    assert key_revisions(node.etcd) == before
    assert "host-not-allowed" in read_as_visitor(f"http://{REBOUND}:{node.port}/status", tmp_path)


def test_compose_root_and_named_users_need_no_token_and_others_do(node: ComposeNode) -> None:
    for uid in (0, 1, SOMEBODY):  # 1: daemon; the checkout is root's here
        assert status_of(f"{node.url}/status", uid) == 200
    for uid in (NOBODY, 10001):
        assert status_of(f"{node.url}/status", uid) == 401
        assert status_of(f"{node.url}/livez", uid) == 200
    shown = [str(REPO / "scripts/compose.sh"), "exec", "-T", "gateway", "cat", "/run/mao/gateway.token"]
    token = subprocess.run(shown, env=node.env, capture_output=True, text=True, check=True).stdout.strip()
    assert status_of(f"{node.url}/status", NOBODY, "-H", f"authorization: Bearer {token}") == 200
    assert status_of(f"{node.url}/status", NOBODY, "-H", f"authorization: Bearer {token}0") == 401


def test_compose_sockets_are_closed_to_all_but_nodes_parts(node: ComposeNode) -> None:
    folder = node.host_path("/run/mao")
    assert (folder.stat().st_uid, folder.stat().st_mode & 0o777) == (10001, 0o700)
    sockets = [path for path in folder.iterdir() if path.is_socket()]
    assert len(sockets) == 6
    assert not any(path.stat().st_mode & 0o022 for path in sockets)
    way = httpx.HTTPTransport(uds=str(folder / "localhost:2379"))
    with httpx.Client(base_url="http://localhost", transport=way) as etcd:
        for path in ("/v3/kv/range", "/v3beta/kv/range", "/v2/keys"):
            assert etcd.post(path, json={"key": "AA=="}).status_code == 404


@pytest.mark.parametrize("user", [None, "root", "1", str(SOMEBODY)])
def test_compose_tool_on_hosts_network_cannot_steer_node(
    node: ComposeNode, engine: Engine, user: str | None
) -> None:
    name = f"steering-{user or 'default'}"
    post = '--header \'content-type: application/json\' --post-data \'{"name": "forged", "image": "x"}\''
    script = f"wget -O - {post} {node.url}/registry/tools > /usr/src/app/data/answer 2>&1; true"
    tool = {"name": name, "image": engine.build(script), "network": "host", "privileges": {"user": user}}
    assert node.http.post("/registry/tools", json=tool).status_code == 201
    master = node.http.post("/bare-repo/init", json={"name": name}).json()["master"]
    assert node.http.post("/registry/datasets", json={"name": name, "master": master}).is_success
    asked = ["host network", *([f"user {user}"] if user else [])]
    agreed = node.http.post("/pipeline/init", json={"tool": name, "dataset": name, "agree": asked})
    assert agreed.is_success, agreed.text

    run = node.wait_run(node.http.post("/pipeline/run", json={"name": name}).json()["id"])

    assert node.http.get("/registry/tools/forged").status_code == 404
    if user in (
        "root",
        "1",
        str(SOMEBODY),
    ):  # a user that the gateway would admit: the container does not start
        assert run["steps"][0]["error"]["code"] == "host-network-uid"
    else:
        assert run["phase"] == "succeeded", run["steps"]
        assert "401 Unauthorized" in node.maoctl("dataset", "cat", name, "answer").stdout


def test_compose_readmes_curl_lines_work_as_written(node: ComposeNode, tool_image: str) -> None:
    master = node.http.post("/bare-repo/init", json={"name": "readme-remote"}).json()["master"]
    main_job.run_readme_lines(node, tool_image, master)


def _sees(item: dict[str, Any], target: str) -> list[dict[str, Any]]:
    return [mount for mount in item["Mounts"] if mount["Destination"] == target]


def test_compose_mounts_socket_and_keys_only_where_needed_without_root(node: ComposeNode) -> None:
    containers = node.running()
    assert {name for name, item in containers.items() if _sees(item, "/var/run/docker.sock")} == {"runner"}
    keys = {name: _sees(item, "/etc/mao/ssh") for name, item in containers.items()}
    assert {name for name, mounts in keys.items() if mounts} == {"datamgmt"}
    assert not keys["datamgmt"][0]["RW"]
    assert not _sees(containers["datamgmt"], "/etc/mao/ssh-host")[0]["RW"]
    agreed = {name: _sees(item, "/var/lib/mao-agreements") for name, item in containers.items()}
    assert {name: mounts[0]["RW"] for name, mounts in agreed.items() if mounts} == {
        "registry": True,
        "runner": False,
        "datamgmt": False,
    }
    assert set(containers) == SERVICES | {"etcd", "federation-etcd"}
    for item in containers.values():
        assert Path(f"/proc/{item['State']['Pid']}").stat().st_uid == 10001
        assert item["HostConfig"]["CapDrop"] == ["ALL"]
        assert item["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped"
        assert item["Config"]["Healthcheck"]


def test_compose_killed_service_is_restarted_and_run_ends_once(
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


def test_compose_federation_is_created_and_collecting_goes_on(node: ComposeNode, tool_image: str) -> None:
    node.maoctl("federation", "create", "lab")

    [member] = json.loads(node.maoctl("federation", "list", "-o", "json").stdout)
    assert (member["node"], member["state"], member["seat"]) == (node.name, "joined", "voter")
    names = Names("federated", "federated-data")
    master = node.http.post("/bare-repo/init", json={"name": "federated-remote"}).json()["master"]
    main_job.register(node, names, tool_image, master)
    assert main_job.run_once(node, names)["phase"] == "succeeded"
    assert names.tool in node.maoctl("tool", "get", "-o", "name").stdout
