"""Clashes of names, and the file that etcd is started with."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mao_registry.federation.context import EtcdAddress
from mao_registry.federation.own_member import etcd_config
from mao_registry.federation.registry_merge import (
    RegistryContents,
    find_clashes,
    find_new_records,
    refuse_clashes,
    removal_commands,
)
from mao_shared.errors import Conflict
from mao_shared.models import Dataset, Pipeline, Schedule, Step, Tool
from mao_shared.store.endpoints import TlsFiles


def tool(name: str, image: str = "lab/x:1") -> Tool:
    return Tool(name=name, author="lab", image=image)


def dataset(name: str, master: str = "/srv/git/x.git", **fields: object) -> Dataset:
    return Dataset.model_validate({"name": name, "master": master, **fields})


def pipeline(name: str, tool_name: str) -> Pipeline:
    return Pipeline(name=name, steps=[Step(tool=tool_name, dataset="data")])


def test_equal_records_and_other_nodes_are_no_clash() -> None:
    ours = RegistryContents([tool("a")], [dataset("data", nodes=["n1"])], [pipeline("p", "a")])
    theirs = RegistryContents([tool("a"), tool("b")], [dataset("data", nodes=["n2"])], [pipeline("p", "a")])
    assert find_clashes(ours, theirs) == []
    refuse_clashes([], "lab")


def test_every_clash_is_listed_with_the_fields_that_differ() -> None:
    ours = RegistryContents(
        [tool("a"), tool("b", "lab/b:2")],
        [dataset("data", "/srv/git/mine.git"), dataset("mine", external=["key"])],
        [pipeline("p", "a")],
    )
    theirs = RegistryContents(
        [tool("a"), tool("b", "lab/b:1")],
        [dataset("data"), dataset("yours", external=["key"])],
        [pipeline("p", "b")],
    )
    with pytest.raises(Conflict) as caught:
        refuse_clashes(find_clashes(ours, theirs), "lab")
    assert caught.value.code == "names-clash"
    assert [(each["kind"], each["name"]) for each in caught.value.facts["clashes"]] == [
        ("tools", "b"),
        ("datasets", "data"),
        ("datasets", "mine"),
        ("pipelines", "p"),
    ]
    assert "differ in image" in caught.value.detail
    assert "belongs to the dataset 'yours'" in caught.value.detail


def test_the_way_out_of_clashes_is_in_the_order_that_works() -> None:
    ours = RegistryContents(
        [tool("a"), tool("b", "lab/b:2")],
        [dataset("data")],
        [pipeline("p", "b"), pipeline("q", "b"), pipeline("r", "a")],
    )
    theirs = RegistryContents([tool("b")], [], [])
    clashes = find_clashes(ours, theirs)
    job = Schedule(id="p-1", pipeline="p", cron="* * * * *", created_at=datetime(2026, 1, 1, tzinfo=UTC))
    commands = removal_commands(
        clashes, ours, {"p"}, [job, job.model_copy(update={"id": "r-1", "pipeline": "r"})]
    )
    assert commands == [
        "maoctl job remove p-1 --yes",
        "maoctl pipeline withdraw p --yes",
        "maoctl pipeline remove p --yes",
        "maoctl pipeline remove q --yes",
        "maoctl tool remove b --yes",
    ]
    with pytest.raises(Conflict) as caught:
        refuse_clashes(clashes, "lab", commands)
    assert " && ".join(commands) in str(caught.value.next)


def test_what_a_node_brings_in() -> None:
    ours = RegistryContents([tool("b"), tool("a")], [dataset("data")], [pipeline("p", "a")])
    theirs = RegistryContents([tool("b")], [], [])
    assert find_new_records(ours, theirs) == ["tool a", "dataset data", "pipeline p"]


def test_etcd_listens_where_others_reach_it_and_asks_for_certificates() -> None:
    address = EtcdAddress("10.0.0.1", 2391, 2392)
    text = etcd_config(
        "n1",
        address,
        data_dir=Path("/data/etcd"),
        token="f-1",
        cluster={"n2": "https://10.0.0.2:2392", "n1": address.peer_url},
        existing=True,
        server=TlsFiles(Path("ca"), Path("server.crt"), Path("server.key")),
        peer=TlsFiles(Path("peers-ca"), Path("peer.crt"), Path("peer.key")),
    )
    settings = json.loads(text)
    assert settings["advertise-client-urls"] == "https://10.0.0.1:2391"
    assert settings["listen-client-urls"] == "https://0.0.0.0:2391"
    assert settings["initial-cluster"] == "n1=https://10.0.0.1:2392,n2=https://10.0.0.2:2392"
    assert settings["initial-cluster-state"] == "existing"
    for part in ("client-transport-security", "peer-transport-security"):
        assert settings[part]["client-cert-auth"] is True
    assert settings["peer-transport-security"]["trusted-ca-file"] == "peers-ca"
    assert settings["enable-grpc-gateway"] is False


@pytest.mark.parametrize(
    ("address", "bind", "listens"),
    [
        ("127.0.0.1", None, "127.0.0.1"),
        ("localhost", None, "127.0.0.1"),
        ("::1", None, "[::1]"),
        ("mao.example.org", None, "0.0.0.0"),
        ("mao.example.org", "10.0.0.7", "10.0.0.7"),
    ],
)
def test_what_etcd_binds(address: str, bind: str | None, listens: str) -> None:
    assert EtcdAddress(address, 1, 2, bind).listen_host() == listens
