"""Start-up time, help texts with examples, shell completion."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from maoctl.contexts import Context, Contexts, write_contexts
from maoctl.exits import CommandError
from maoctl.main import app
from maoctl.session import load_config
from tests.support.users import NOBODY, as_user, needs_root

from . import documents
from .conftest import Maoctl
from .gateways import RememberingGateway

HEAVY = ("fastapi", "starlette", "uvicorn", "grpc", "aetcd", "docker", "pygit2")
LATER = ("httpx", "pydantic", "rich", "yaml")


def imported_by(*args: str) -> set[str]:
    """Return the top-level packages that a command line imports."""
    command = [sys.executable, "-X", "importtime", "-m", "maoctl", *args]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = (line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "import time:" in line)
    return {line.partition(".")[0] for line in lines}


def test_help_imports_no_heavy_packages() -> None:
    assert imported_by("--help").isdisjoint({*HEAVY, *LATER})


def test_commands_import_no_packages_of_services() -> None:
    loaded = imported_by("--url", "http://127.0.0.1:9", "tool", "get")
    assert "httpx" in loaded
    assert loaded.isdisjoint(HEAVY)


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in group.commands.items():
        if command.hidden:
            continue
        here = (*path, name)
        yield (here, command)
        if hasattr(command, "commands"):
            yield from commands(command, here)


ALL = list(commands(typer.main.get_command(app)))


@pytest.mark.parametrize(("path", "command"), ALL, ids=[" ".join(path) for path, _ in ALL])
def test_every_command_has_help_and_an_example(path: tuple[str, ...], command: Any) -> None:
    assert command.help
    if not hasattr(command, "commands"):
        assert f"maoctl {' '.join(path)}" in command.epilog


def complete(words: str, url: str, shell: str = "bash") -> list[str]:
    """Return the completions that a shell would offer."""
    environ = {
        "_MAOCTL_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
        "_TYPER_COMPLETE_ARGS": words,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    command = [sys.executable, "-m", "maoctl"]
    environ |= {**os.environ, "MAO_URL": url}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return re.findall(r"[\w-]+", done.stdout)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_of_names(gateway: RememberingGateway, url: str, shell: str) -> None:
    gateway.keep("/registry/tools", documents.tool("crawler"), documents.tool("summary"))

    for verb in ("show", "describe", "rm"):
        shown = complete(f"maoctl tool {verb} cr", url, shell)
        assert "crawler" in shown
        assert "summary" not in shown
    assert "pipeline" in complete("maoctl pi", url, shell)
    assert "describe" not in complete("maoctl tool ", url, shell)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script(maoctl: Maoctl, shell: str) -> None:
    script = maoctl("completion", shell).out
    assert "_MAOCTL_COMPLETE" in script
    assert f"complete_{shell}" in script


def test_completion_of_contexts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAOCTL_CONFIG", str(tmp_path / "contexts.json"))
    write_contexts(os.environ, Contexts({"lab": Context("http://x"), "away": Context("http://y")}))

    assert complete("maoctl context use la", "") == ["lab"]
    assert complete("maoctl --context aw", "") == ["away"]
    (tmp_path / "contexts.json").write_text("[", "utf-8")
    assert complete("maoctl context use la", "") == []


def test_completion_without_a_node_is_silent() -> None:
    assert complete("maoctl tool show cr", "http://127.0.0.1:9") == []


def test_config_url_precedence() -> None:
    environ = {"MAO_URL": "http://a:1/", "MAO_GATEWAY_PORT": "9090"}

    assert load_config(environ, "http://b:2").url == "http://b:2"
    assert load_config(environ).url == "http://a:1"
    assert load_config({"MAO_GATEWAY_PORT": "9090"}).url == "http://127.0.0.1:9090"
    assert load_config({}).url == "http://127.0.0.1:8080"


def test_config_token_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("mao_x\n", "utf-8")

    config = load_config({"MAO_TOKEN_FILE": str(file)})

    assert config.token == "mao_x"
    assert "mao_x" not in repr(config)
    with pytest.raises(CommandError, match="cannot be read"):
        load_config({"MAO_TOKEN_FILE": str(tmp_path / "none")})


def test_config_local_token_is_for_the_local_node_only(tmp_path: Path) -> None:
    file = tmp_path / "gateway.token"
    file.write_text("mao_own\n", "utf-8")
    with socket.create_server(("127.0.0.1", 0)) as node:
        port = node.getsockname()[1]
        environ = {"MAO_DATA_DIR": str(tmp_path), "MAO_GATEWAY_PORT": str(port)}
        assert load_config(environ).token == "mao_own"
        assert load_config(environ, f"http://localhost:{port}").token == "mao_own"
        assert load_config({"importdir": str(tmp_path)}, f"http://127.0.0.1:{port}").token == "mao_own"
        assert load_config({**environ, "MAO_TOKEN": "mine"}).token == "mine"
        assert load_config(environ, f"http://other.example:{port}").token is None
        assert (
            load_config({"MAO_DATA_DIR": str(tmp_path / "none"), "MAO_GATEWAY_PORT": str(port)}).token is None
        )
        file.write_text("")
        assert load_config(environ).token is None
        file.write_text("mao_own")
        if os.geteuid() == 0:  # another user's program at this port is not the file's node
            os.chown(file, 4321, 4321)
            assert load_config(environ).token is None
            os.chown(file, 0, 0)
    assert load_config(environ).token is None  # nothing listens


def test_config_compose_token_is_for_that_node_only() -> None:
    with socket.create_server(("127.0.0.1", 0)) as node:
        url = f"http://127.0.0.1:{node.getsockname()[1]}"
        assert load_config({"MAO_NODE_TOKEN": f"{os.geteuid()}:mao_own"}, url).token == "mao_own"
        assert load_config({"MAO_NODE_TOKEN": "4321:mao_own"}, url).token is None  # another listens there
        assert load_config({"MAO_NODE_TOKEN": f"{os.geteuid()}:mao_own", "MAO_TOKEN": "x"}, url).token == "x"
        for odd in ("mao_own", ":mao_own", "root:mao_own", f"{os.geteuid()}:"):
            assert load_config({"MAO_NODE_TOKEN": odd, "MAO_DATA_DIR": "/none"}, url).token is None


LISTENS = """
import socket, sys
with socket.create_server((sys.argv[1], int(sys.argv[2])), family=int(sys.argv[3])):
    print("listens", flush=True)
    sys.stdin.read()
"""


@needs_root
@pytest.mark.parametrize(("other", "family"), [("::1", socket.AF_INET6), ("127.0.0.2", socket.AF_INET)])
@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "[::1]"])
def test_config_no_token_while_another_user_shares_the_port(
    name: str, other: str, family: int, tmp_path: Path
) -> None:
    (tmp_path / "gateway.token").write_text("mao_own\n", "utf-8")
    with socket.create_server(("127.0.0.1", 0)) as node:
        port = str(node.getsockname()[1])
        argv = as_user(NOBODY, sys.executable, "-c", LISTENS, other, port, str(int(family)))
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as stranger:
            assert stranger.stdout is not None
            assert stranger.stdout.readline() == "listens\n"
            environ = {"MAO_DATA_DIR": str(tmp_path)}
            assert load_config(environ, f"http://{name}:{port}").token is None
            stranger.communicate("")
        assert load_config(environ, f"http://{name}:{port}").token == "mao_own"
