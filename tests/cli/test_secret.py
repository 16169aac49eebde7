"""`maoctl secret` and the options for secrets of `maoctl tool`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from . import example_node as node
from .conftest import Maoctl
from .gateways import RememberingGateway

VALUE = "s3cret-canary"


@pytest.fixture
def gateway_with_node(gateway: RememberingGateway) -> RememberingGateway:
    return node.answer_all(gateway)


def sent(gateway: RememberingGateway, method: str) -> list[Any]:
    return [call.body for call in gateway.calls if call.method == method]


@pytest.mark.parametrize("text", [VALUE, f"{VALUE}\n"])
def test_set_reads_a_file_and_prints_no_value(
    maoctl: Maoctl, gateway_with_node: RememberingGateway, tmp_path: Path, text: str
) -> None:
    (tmp_path / "token").write_text(text)
    done = maoctl("secret", "set", node.SECRET, "--from-file", str(tmp_path / "token"))
    assert done.code == 0, done.err
    assert sent(gateway_with_node, "PUT") == [{"value": VALUE}]
    assert VALUE not in done.out + done.err
    assert f"given to {node.PIPELINE}/{node.TOOL}" in done.err


def test_set_without_terminal_says_how(maoctl: Maoctl, gateway_with_node: RememberingGateway) -> None:
    done = maoctl("secret", "set", node.SECRET)
    assert done.code == 2
    assert "--from-file -" in done.err
    assert sent(gateway_with_node, "PUT") == []


def test_tool_options_add_and_drop_secrets(maoctl: Maoctl, gateway_with_node: RememberingGateway) -> None:
    def changed(*options: str) -> Any:
        done = maoctl("tool", "update", node.TOOL, *options)
        assert done.code == 0, done.err
        return sent(gateway_with_node, "PUT")[-1].get("secrets")

    file, variable = {"secret": "deploy-key"}, {"secret": "token", "env": "TOKEN"}
    assert changed("--secret", "deploy-key", "--secret", "TOKEN=token") == [file, variable]
    assert changed("--secret", "TOKEN=other") == [file, {"secret": "other", "env": "TOKEN"}]
    assert changed("--secret", "third", "--drop-secret", "deploy-key") == [
        {"secret": "other", "env": "TOKEN"},
        {"secret": "third"},
    ]


def test_tool_add_warns_of_variables_that_look_secret(
    maoctl: Maoctl, gateway_with_node: RememberingGateway
) -> None:
    env = ["--env", "PGPASS=geheim", "--env", "DEPTH=3"]
    done = maoctl("tool", "add", "new-tool", "me", node.IMAGE, *env)
    assert done.code == 0, done.err
    assert "warning: PGPASS of tool new-tool looks like a secret" in done.err
    assert "--secret PGPASS=pgpass" in done.err
    assert "DEPTH" not in done.err
    assert "geheim" not in done.err
