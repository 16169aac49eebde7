"""The file that etcd is started with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mao_registry.federation.context import EtcdAddress
from mao_registry.federation.own_member import etcd_config
from mao_shared.store.endpoints import TlsFiles


def test_etcd_config_addresses_and_tls() -> None:
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
def test_etcd_config_bind_address(address: str, bind: str | None, listens: str) -> None:
    assert EtcdAddress(address, 1, 2, bind).listen_host() == listens
