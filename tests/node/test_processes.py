"""The processes of a node by its settings; impossible settings are refused before any start."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from pydantic import ValidationError

from mao_node.__main__ import main
from mao_node.preflight import check_ports, check_program, lock
from mao_node.processes import node_processes
from mao_node.settings import NodeSettings
from mao_shared.errors import Conflict, NotFound
from mao_shared.settings import WRONG_SETTINGS, ServiceSettings


def test_node_processes_of_two_nodes_share_no_port_or_socket() -> None:
    first = node_processes(NodeSettings(node="one", data_dir=Path("/srv/one"), gateway_port=8080), {})
    second = node_processes(NodeSettings(node="two", data_dir=Path("/srv/two"), gateway_port=8180), {})
    ports = [port for spec in first + second for port in spec.ports]
    assert ports == [8080, 8180]
    sockets = [path for spec in first + second for path in spec.sockets]
    assert len(sockets) == len(set(sockets)) == 12
    federation = [spec.env["MAO_FEDERATION_PORT"] for spec in first[-1:] + second[-1:]]
    assert federation == ["8087", "8187"]


def test_node_processes_environment_names_node_store_and_services() -> None:
    settings = NodeSettings(node="one", data_dir=Path("/srv/one"))
    specs = {spec.name: spec for spec in node_processes(settings, {"MAO_SLOTS": "3", "MAO_SOCKET": "/x"})}
    env = specs["runner"].env
    assert env["MAO_NODE"] == "one"
    assert env["MAO_ETCD_ENDPOINTS"] == "unix:///srv/one/run/localhost:2379"
    assert env["MAO_SOCKET"] == "/srv/one/run/runner.sock"
    assert env["MAO_DATAMGMT_URL"] == "unix:///srv/one/run/datamgmt.sock"
    assert "MAO_SOCKET" not in specs["gateway"].env
    assert specs["gateway"].env["MAO_PORT"] == "8080"
    assert env["MAO_SLOTS"] == "3"
    assert next(iter(specs)) == "etcd"
    assert list(specs)[-1] == "gateway"


def test_node_processes_federation_etcd_needs_its_configuration(tmp_path: Path) -> None:
    specs = {spec.name: spec for spec in node_processes(NodeSettings(node="one", data_dir=tmp_path), {})}
    optional = specs["federation-etcd"]
    assert optional.config == tmp_path / "federation/etcd.yaml"
    assert optional.argv == ["etcd", f"--config-file={optional.config}"]
    assert specs["registry"].env["MAO_FEDERATION_DIR"] == str(tmp_path / "federation")
    assert specs["registry"].env["MAO_SUPERVISOR"] == str(os.getpid())
    assert [spec.name for spec in specs.values() if spec.config is not None] == ["federation-etcd"]


def test_node_processes_start_no_etcd_where_one_is_given() -> None:
    specs = node_processes(NodeSettings(etcd_endpoints="10.0.0.1:2379"), {})
    assert "etcd" not in [spec.name for spec in specs]
    assert {spec.env["MAO_ETCD_ENDPOINTS"] for spec in specs if spec.module} == {"10.0.0.1:2379"}


def test_settings_accept_the_originals_names_after_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MAO_NODE", "MAO_DATA_DIR", "MAO_ETCD_ENDPOINTS", "MAO_GATEWAY_PORT"):
        monkeypatch.delenv(name, raising=False)
    seeds = {"workuser": "zurich", "importdir": "/data", "etcdhost": "etcd.example", "port": "2400"}
    for name, value in seeds.items():
        monkeypatch.setenv(name, value)
    specs = [spec for spec in node_processes(NodeSettings(), dict(os.environ)) if spec.module]
    assert {spec.env["MAO_NODE"] for spec in specs} == {"zurich"}
    assert {spec.env["MAO_DATA_DIR"] for spec in specs} == {"/data"}
    assert {spec.env["MAO_ETCD_ENDPOINTS"] for spec in specs} == {"etcd.example:2400"}
    assert specs[-1].ports == [8080]  # the seed's port is etcd's
    monkeypatch.setenv("MAO_NODE", "bern")
    assert NodeSettings().node == "bern"


def test_lock_of_a_running_node_is_refused(tmp_path: Path) -> None:
    held = lock(tmp_path)
    with pytest.raises(Conflict, match=str(os.getpid())) as caught:
        lock(tmp_path)
    assert caught.value.code == "node-running"
    os.close(held)
    os.close(lock(tmp_path))


def test_lock_names_an_unusable_data_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Conflict, match=r"file/node cannot be used: Not a directory") as caught:
        lock(tmp_path / "file/node")
    assert caught.value.code == "data-dir-unusable"


def test_settings_errors_name_the_variable(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MAO_NODE", "a b")
    monkeypatch.setenv("MAO_GATEWAY_PORT", "many")
    assert main() == WRONG_SETTINGS
    first, second, last = capsys.readouterr().err.splitlines()
    assert first.startswith("MAO_NODE is invalid: invalid name")
    assert second.startswith("MAO_GATEWAY_PORT is invalid: input should be a valid integer")
    assert last.startswith("  next: ")


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::1", "::"])
def test_check_ports_names_a_taken_port(host: str) -> None:
    """A port taken on the other loopback address counts, since `localhost` may resolve to it."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as taken:
        taken.bind((host, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(Conflict, match=str(port)):
            check_ports([port])


def test_check_program_names_a_missing_program() -> None:
    with pytest.raises(NotFound, match="no-such-program"):
        check_program("no-such-program")


@pytest.mark.parametrize(
    ("given", "port", "used"),
    [
        ({"etcdhost": "10.0.0.5"}, "2400", "10.0.0.5:2400"),
        ({"etcdhost": "10.0.0.5:2379"}, "2400", "10.0.0.5:2379"),
        ({"etcdhost": "one,two"}, "2400", "one,two"),
        ({"etcdhost": "10.0.0.5"}, "", "10.0.0.5"),
        ({"MAO_ETCD_ENDPOINTS": "unix:///run/etcd"}, "2400", "unix:///run/etcd"),
        ({}, "2400", None),
    ],
)
def test_settings_original_port_is_etcds(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], port: str, used: str | None
) -> None:
    for name in ("MAO_ETCD_ENDPOINTS", "MAO_GATEWAY_PORT", "etcdhost"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {**given, "port": port}.items():
        monkeypatch.setenv(name, value)
    assert (NodeSettings().etcd_endpoints, NodeSettings().gateway_port) == (used, 8080)
    assert ServiceSettings().etcd_endpoints == (used or "127.0.0.1:2379")


@pytest.mark.parametrize("port", ["0", "70000", "two", "²"])
def test_settings_original_port_that_is_invalid_is_named(monkeypatch: pytest.MonkeyPatch, port: str) -> None:
    monkeypatch.delenv("MAO_ETCD_ENDPOINTS", raising=False)
    monkeypatch.setenv("etcdhost", "etcd.example")
    monkeypatch.setenv("port", port)
    with pytest.raises(ValidationError, match="'port', etcd's port beside 'etcdhost'"):
        NodeSettings()
