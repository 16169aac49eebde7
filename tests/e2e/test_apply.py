"""`maoctl apply` against a running node: what `get` prints applies, also where it masks a secret."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.node import NativeNode

pytestmark = [pytest.mark.docker, pytest.mark.etcd]
FIRST, SECOND = "ntfys://192.0.2.1/first-topic", "ntfys://192.0.2.1/second-topic"
NAMES = ("channel/applied", "rule/applied", "heartbeat/applied")


@pytest.fixture
def file(node: NativeNode, tmp_path: Path) -> Iterator[Path]:
    """A file with a channel, a rule and a heartbeat, which the node has not; they are removed at the end."""
    path = tmp_path / "records.json"
    ping = "https://192.0.2.1/ping/secret-id"
    records = [
        {"kind": "channel", "name": "applied", "url": FIRST},
        {"kind": "rule", "name": "applied", "channels": ["applied"], "kinds": ["never"], "reminder": "1h"},
        {"kind": "heartbeat", "pipeline": "applied", "url": ping},
    ]
    path.write_text(json.dumps(records))
    yield path
    for collection in ("rules", "channels", "heartbeats"):
        node.http.delete(f"/{collection}/applied")


def results(node: NativeNode, file: Path) -> list[str]:
    return node.maoctl("apply", "-f", str(file)).stdout.splitlines()


def test_apply_round_trips_channels_rules_and_heartbeats(
    node: NativeNode, file: Path, tmp_path: Path
) -> None:
    assert results(node, file) == [f"{name} created" for name in NAMES]
    assert results(node, file) == [f"{name} unchanged" for name in NAMES]

    printed = tmp_path / "printed"
    printed.mkdir()
    for noun in ("channel", "rule", "heartbeat"):
        text = node.maoctl("alarm", noun, "get", "applied", "-o", "json").stdout
        assert "topic" not in text
        assert "secret-id" not in text
        (printed / f"{noun}.json").write_text(text)
    assert results(node, printed) == [f"{name} unchanged" for name in NAMES]

    file.write_text(file.read_text().replace(FIRST, SECOND))
    changed = node.maoctl("diff", "-f", str(file), check=False)
    assert changed.returncode == 1
    assert "channel/applied" in changed.stdout
    assert "topic" not in changed.stdout
    assert results(node, file) == ["channel/applied updated", *(f"{name} unchanged" for name in NAMES[1:])]
    assert node.http.post("/channels/applied/compare", json={"url": SECOND}).json() == {"same": True}
    recorded = node.http.get("/audit", params={"action": "channels", "subject": "applied"}).json()["items"]
    assert [entry["action"] for entry in recorded] == ["channels.put", "channels.add"]  # and no comparison
