"""Access to a native node by web pages, other users and tools on the host's network."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from mao_node.processes import TOKEN_FILE
from tests.support import main_job
from tests.support.browser import REBOUND, attacks, read_as_visitor, visit
from tests.support.docker import Engine
from tests.support.etcd import EtcdServer, key_revisions
from tests.support.git import bare_repository
from tests.support.node import NativeNode, native_node
from tests.support.users import (
    NOBODY,
    SOMEBODY,
    as_user,
    common_folder,
    connect_as,
    host_network,
    needs_root,
    python_for,
    status_of,
)

pytestmark = [pytest.mark.docker, pytest.mark.etcd]
HELPER = SOMEBODY + 1  # named in MAO_LOCAL_USERS


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with common_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def node(folder: Path) -> Iterator[NativeNode]:
    with native_node(folder, name="guarded", env={"MAO_LOCAL_USERS": str(HELPER)}) as node:
        yield node


def test_access_web_page_reads_nothing_and_changes_nothing(node: NativeNode, tmp_path: Path) -> None:
    before = key_revisions(node.etcd)
    ports = range(node.port, node.port + 9)  # ports that earlier versions used

    report = visit([target for port in ports for target in attacks(port)], tmp_path)

    assert report["got"] == []
    assert len(report["tried"]) > 1000
    assert key_revisions(node.etcd) == before
    for path in ("/registry/tools", "/enrolments", "/runs"):
        assert node.http.get(path).json()["items"] == []


def test_access_same_page_controls_etcd_with_json_gateway(etcd_server: EtcdServer, tmp_path: Path) -> None:
    etcd_server.wipe()
    report = visit(attacks(etcd_server.port), tmp_path)
    assert any(
        "/v3/kv/range" in reply["url"] and "header" in reply.get("text", "") for reply in report["got"]
    )
    assert int(etcd_server.call("kv/range", key="L21hby9mb3JnZWQ=")["count"]) == 1


@pytest.mark.parametrize("path", ["/status", "/registry/tools", "/", "/openapi.json"])
def test_access_name_that_was_rebound_shows_nothing(node: NativeNode, path: str, tmp_path: Path) -> None:
    seen = read_as_visitor(f"http://{REBOUND}:{node.port}{path}", tmp_path)
    assert "host-not-allowed" in seen
    assert '"services"' not in seen
    assert "guarded" not in seen


def test_access_operators_browser_sees_node(node: NativeNode, tmp_path: Path) -> None:
    assert '"node":"guarded"' in read_as_visitor(f"{node.url}/status", tmp_path)


def test_access_node_has_one_port_and_etcd_speaks_no_json(node: NativeNode) -> None:
    assert listening(node) == {node.port}
    way = httpx.HTTPTransport(uds=node.etcd.removeprefix("unix://"))
    with httpx.Client(base_url="http://localhost", transport=way) as etcd:
        for path in ("/v3/kv/range", "/v3alpha/kv/range", "/v3beta/kv/range", "/v2/keys", "/v2/members"):
            assert etcd.post(path, json={"key": "AA=="}).status_code == 404


def listening(node: NativeNode) -> set[int]:
    """Return the TCP ports on which the node's processes listen."""
    printed = subprocess.run(["ss", "-Hlntp"], capture_output=True, text=True, check=True).stdout
    pids = {node.pid, *(node.pid_of(name) for name in ("etcd", "gateway", "registry", "scheduler"))}
    pids |= {node.pid_of(name) for name in ("runner", "datamgmt")}
    lines = [line for line in printed.splitlines() if pids & set(map(int, re.findall(r"pid=(\d+)", line)))]
    return {int(line.split()[3].rpartition(":")[2]) for line in lines}


@needs_root
def test_access_another_user_is_refused_everywhere(node: NativeNode) -> None:
    sockets = sorted(str(path) for path in node.sockets.iterdir())
    assert len(sockets) == 6  # four services, and etcd's client and peer sockets

    assert set(connect_as(NOBODY, sockets)) == {"PermissionError"}
    assert set(connect_as(0, sockets)) == {"connected"}
    old = [("127.0.0.1", node.port + offset) for offset in range(1, 9)]
    assert set(connect_as(NOBODY, old)) == {"ConnectionRefusedError"}
    for path in (
        "/",
        "/status",
        "/enrolments",
        "/docs",
        "/metrics",
        "/dashboard",
        "/events",
        "/services/runner/docs",
    ):
        assert status_of(node.url + path, NOBODY) == 401
    for path in ("/livez", "/readyz"):
        assert status_of(node.url + path, NOBODY) == 200
        told = subprocess.check_output(as_user(NOBODY, "curl", "-s", node.url + path))
        assert json.loads(told).keys() == {"status", "version"}


@needs_root
@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/registry/tools", '{"name":"x","image":"busybox","privileges":{"user":"root"}}'),
        ("PUT", "/enrolments/x/consent", "{}"),
        ("DELETE", "/registry/tools/x", "{}"),
        ("POST", "/pipeline/run", '{"name":"x"}'),
    ],
)
def test_access_another_user_changes_nothing(node: NativeNode, method: str, path: str, body: str) -> None:
    before = key_revisions(node.etcd)
    sent = ("-X", method, "-H", "content-type: application/json", "-d", body)
    assert status_of(node.url + path, NOBODY, *sent) == 401
    assert key_revisions(node.etcd) == before


@needs_root
def test_access_socket_is_closed_even_where_its_folder_is_opened(node: NativeNode) -> None:
    sockets = sorted(str(path) for path in node.sockets.iterdir())
    node.sockets.chmod(0o755)
    try:
        assert set(connect_as(NOBODY, sockets)) == {"PermissionError"}
    finally:
        node.sockets.chmod(0o700)


@needs_root
def test_access_named_user_and_token_are_admitted(node: NativeNode) -> None:
    assert status_of(f"{node.url}/status", HELPER) == 200
    token = (node.data_dir / TOKEN_FILE).read_text().strip()
    assert (node.data_dir / TOKEN_FILE).stat().st_mode & 0o777 == 0o600
    assert status_of(f"{node.url}/status", NOBODY, "-H", f"authorization: Bearer {token}") == 200
    assert status_of(f"{node.url}/status", NOBODY, "-u", f"any:{token}") == 200
    assert status_of(f"{node.url}/status", NOBODY, "-H", f"authorization: Bearer {token}x") == 401
    assert status_of(f"{node.url}/status", NOBODY, "-H", "authorization: Bearer") == 401


def test_access_node_process_calling_gateway_is_stranger(folder: Path) -> None:
    """Use a webhook; a dataset's remote can likewise direct git and git-lfs to a URL."""
    env = {"MAO_WEBHOOK_HOSTS": "127.0.0.1"}
    with native_node(folder, name="calling", env=env) as node:
        hook = {"name": "own", "url": f"{node.url}/registry/tools", "secret": "s" * 32}
        assert node.http.post("/webhooks", json=hook).status_code == 201
        told = node.http.post("/webhooks/own/test")
        assert "it answered 401" in told.text


STEER = "wget -q -O - --header 'content-type: application/json' --post-data '{post}' {url}/registry/tools"


@pytest.mark.parametrize("user", [None, "root", "10001:10001", "0:0", str(HELPER)])
def test_access_tool_on_hosts_network_cannot_steer_node(
    node: NativeNode, engine: Engine, user: str | None
) -> None:
    name = f"steering-{(user or 'default').replace(':', '-')}"
    forged = json.dumps({"name": f"by-{name}", "image": engine.base(), "privileges": {"user": "root"}})
    script = f"""
        {STEER.format(post=forged, url=node.url)} > /usr/src/app/data/answer 2>&1
        echo "status $?" >> /usr/src/app/data/answer
        wget -q -O - {node.url}/readyz > /usr/src/app/data/reached
    """
    with host_network():
        run = run_tool(node, engine, name, script, user)

    assert run["phase"] == "succeeded", run["steps"]
    cat = [node.maoctl("dataset", "cat", name, file).stdout for file in ("answer", "reached")]
    assert "401 Unauthorized" in cat[0]
    assert json.loads(cat[1]).keys() == {"status", "version"}  # the tool was on the host's network
    assert node.http.get(f"/registry/tools/by-{name}").status_code == 404


def run_tool(node: NativeNode, engine: Engine, name: str, script: str, user: str | None) -> dict[str, Any]:
    """Run a tool with consent to the host's network, and to a user if given, and return the run."""
    privileges = {} if user is None else {"user": user}
    tool = {"name": name, "image": engine.build(script), "network": "host", "privileges": privileges}
    master = bare_repository(node.data_dir.parent / f"{name}.git")
    assert node.http.post("/registry/tools", json=tool).status_code == 201
    assert node.http.post("/registry/datasets", json={"name": name, "master": str(master)}).is_success
    asked = ["host network", *([f"user {user}"] if user else [])]
    agreed = node.http.post("/pipeline/init", json={"tool": name, "dataset": name, "agree": asked})
    assert agreed.is_success, agreed.text
    return node.wait_run(node.http.post("/pipeline/run", json={"name": name}).json()["id"])


@needs_root
def test_access_node_of_ordinary_user(engine: Engine, tool_image: str) -> None:
    socket = Path("/var/run/docker.sock").stat()
    with common_folder(SOMEBODY) as folder:
        python, path = python_for(SOMEBODY)
        env = {"HOME": str(folder), "MAO_LOCAL_USERS": f"root, {HELPER}", **path}
        wrap = as_user(SOMEBODY, groups=[socket.st_gid])
        with (
            host_network(),
            native_node(folder, name="ordinary", env=env, wrap=wrap, python=python) as node,
        ):
            assert status_of(f"{node.url}/status", SOMEBODY) == 200
            for uid in (0, HELPER):
                # It can only see whether the caller may be a process of a container.
                let_in = status_of(f"{node.url}/status", uid) == 200
                assert let_in or engine.client.containers.list(filters={"network": "host"})
            assert status_of(f"{node.url}/status", NOBODY) == 401
            sockets = [str(path) for path in node.sockets.iterdir()]
            assert set(connect_as(NOBODY, sockets)) == {"PermissionError"}
            for uid in (0, SOMEBODY, HELPER, NOBODY):
                called = call_from_host_network(engine, node.url, uid)
                assert "401 Unauthorized" in called, (uid, called)
            remote = bare_repository(folder / "remote.git")
            subprocess.run(["chown", "-R", str(SOMEBODY), remote], check=True)
            token = (node.data_dir / TOKEN_FILE).read_text().strip()
            node.http.headers["authorization"] = f"Bearer {token}"  # the test runs as root
            main_job.run_readme_lines(node, tool_image, str(remote), as_user(SOMEBODY))


def call_from_host_network(engine: Engine, url: str, uid: int) -> str:
    """Call the gateway from a container on the host's network and return the answer."""
    printed = engine.client.containers.run(
        engine.base(),
        ["sh", "-c", f"wget -O - {url}/status 2>&1 || true"],
        user=f"{uid}:{uid}",
        network_mode="host",
        remove=True,
        labels={"mao.test": engine.session},
    )
    return bytes(printed).decode()


@needs_root
def test_access_node_that_is_open_to_all_says_so(folder: Path) -> None:
    with native_node(folder, name="open", env={"MAO_OPEN_TO_LOCAL_USERS": "true"}) as node:
        assert status_of(f"{node.url}/status", NOBODY) == 200


def test_access_readmes_curl_lines_work_as_written(node: NativeNode, tool_image: str, tmp_path: Path) -> None:
    main_job.run_readme_lines(node, tool_image, str(bare_repository(tmp_path / "remote.git")))
