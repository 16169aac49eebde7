"""`maoctl context` and `--context`: several nodes by name, their tokens, and what goes before what."""

from __future__ import annotations

import io
import json
import os
import stat
from pathlib import Path

import pytest

from maoctl.contexts import Context, Contexts, context_file, read_contexts, write_contexts
from maoctl.exits import CommandError
from maoctl.session import load_config

from . import documents
from .conftest import Maoctl
from .gateways import RememberingGateway, Served

OTHER = "http://203.0.113.9:8080"


@pytest.fixture
def environ(maoctl: Maoctl, tmp_path: Path) -> dict[str, str]:
    """The environment of commands, with a home directory and no address of a node."""
    maoctl.environ = {"HOME": str(tmp_path), "MAO_URL": "", "MAO_DATA_DIR": str(tmp_path / "none")}
    return maoctl.environ


def add(maoctl: Maoctl, name: str, url: str, *more: str) -> None:
    done = maoctl("context", "add", name, url, *more)
    assert done.code == 0, done.err


def test_commands_go_to_the_current_context(
    maoctl: Maoctl, gateway: RememberingGateway, environ: dict[str, str]
) -> None:
    gateway.keep("/registry/tools", documents.tool())
    add(maoctl, "lab", maoctl.url)
    add(maoctl, "away", "http://127.0.0.1:9")

    assert maoctl("tool", "get", "-o", "name").out == "tool/crawler\n"  # the first one added
    assert maoctl("--context", "away", "tool", "get").code == 6
    assert maoctl("context", "use", "away").code == 0
    assert maoctl("tool", "get").code == 6
    assert maoctl("--context", "lab", "tool", "get", "-o", "name").out == "tool/crawler\n"
    environ["MAO_CONTEXT"] = "lab"
    assert maoctl("tool", "get", "-o", "name").out == "tool/crawler\n"


def test_context_list_show_and_remove(maoctl: Maoctl, environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "token").write_text(" mao_secret\n", "utf-8")
    add(maoctl, "lab", "https://mao.lab.example.org/", "--token-file", str(tmp_path / "token"))
    add(maoctl, "away", OTHER)

    listed = json.loads(maoctl("context", "ls", "-o", "json").out)

    assert [(row["name"], row["url"], row["current"], row["token"]) for row in listed] == [
        ("away", OTHER, False, False),
        ("lab", "https://mao.lab.example.org", True, True),
    ]
    assert json.loads(maoctl("context", "show", "-o", "json").out)["name"] == "lab"
    assert maoctl("context", "show", "context/away", "-o", "name").out == "context/away\n"
    shown = [maoctl("context", *words) for words in (("list",), ("show",), ("get", "-o", "yaml"))]
    assert not any("mao_secret" in result.out + result.err for result in shown)
    assert maoctl("context", "rm", "lab").code == 2  # nobody is there to answer
    assert maoctl("context", "rm", "context/lab", "--yes").code == 0
    assert read_contexts(environ) == Contexts({"away": Context(OTHER)})
    assert maoctl("context", "show").code == 3


def test_context_file_is_the_users_own(maoctl: Maoctl, environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "token").write_text("mao_secret", "utf-8")
    before = os.umask(0)
    try:
        add(maoctl, "lab", OTHER, "--token-file", str(tmp_path / "token"))
    finally:
        os.umask(before)

    path = tmp_path / ".config" / "maoctl" / "contexts.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [file.name for file in path.parent.iterdir()] == ["contexts.json"]
    path.chmod(0o644)
    refused = maoctl("tool", "get")
    assert refused.code == 4
    assert f"next: Protect them: chmod 600 {path}\n" in refused.err


def test_tokens_go_to_their_own_context_only(
    maoctl: Maoctl, gateway: RememberingGateway, served: Served, environ: dict[str, str]
) -> None:
    gateway.keep("/registry/tools")
    write_contexts(
        environ,
        Contexts({"own": Context(served.url, "of-own"), "none": Context(served.url)}, "own"),
    )
    environ["MAO_TOKEN"] = "of-environment"

    maoctl("tool", "get")
    maoctl("--context", "none", "tool", "get")
    maoctl("--url", served.url, "tool", "get")

    sent = [call.headers["authorization"] for call in gateway.called("GET", "/registry/tools")]
    assert sent == ["Bearer of-own", "Bearer of-environment", "Bearer of-environment"]


def test_precedence_of_addresses(tmp_path: Path) -> None:
    base = {"HOME": str(tmp_path)}
    write_contexts(base, Contexts({"a": Context("http://a"), "b": Context("http://b")}, "a"))

    assert load_config(base).url == "http://a"
    assert load_config({**base, "MAO_CONTEXT": "b"}).url == "http://b"
    assert load_config({**base, "MAO_GATEWAY_PORT": "81"}).url == "http://127.0.0.1:81"
    assert load_config({**base, "MAO_GATEWAY_PORT": "81", "MAO_CONTEXT": "b"}).url == "http://b"
    assert load_config({**base, "MAO_CONTEXT": "b", "MAO_URL": "http://c"}).url == "http://c"
    assert load_config({**base, "MAO_URL": "http://c"}, context="b").url == "http://b"
    assert load_config({**base, "MAO_CONTEXT": "b"}, "http://d").url == "http://d"
    assert load_config({}).url == "http://127.0.0.1:8080"
    with pytest.raises(CommandError, match="cannot be combined"):
        load_config(base, "http://d", "a")
    with pytest.raises(CommandError, match="no context 'bb'"):
        load_config(base, context="bb")


def test_context_file_path() -> None:
    assert context_file({}) is None
    assert context_file({"HOME": "/h"}) == Path("/h/.config/maoctl/contexts.json")
    assert context_file({"HOME": "/h", "XDG_CONFIG_HOME": "/x"}) == Path("/x/maoctl/contexts.json")
    assert context_file({"HOME": "/h", "MAOCTL_CONFIG": "/f.json"}) == Path("/f.json")


@pytest.mark.parametrize("text", ["[", "[]", '{"contexts": {"a": {}}}', '{"contexts": ["a"]}', "\x80"])
def test_contexts_that_cannot_be_read(
    maoctl: Maoctl, environ: dict[str, str], tmp_path: Path, text: str
) -> None:
    path = tmp_path / "contexts.json"
    environ["MAOCTL_CONFIG"] = str(path)
    path.write_bytes(text.encode("latin-1"))

    for words in (("context", "list"), ("tool", "get")):
        refused = maoctl(*words)
        assert refused.code == 2
        assert f"The contexts in {path} cannot be read" in refused.err


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("add ..bad http://x", 2),
        ("add lab ftp://x", 2),
        ("add lab http://x --token-file /none", 2),
        ("add known http://x", 5),
        ("use nown", 3),
        ("rm nown --yes", 3),
        ("show nown", 3),
    ],
)
def test_context_refuses(maoctl: Maoctl, environ: dict[str, str], words: str, code: int) -> None:
    before = Contexts({"known": Context("http://known")}, "known")
    write_contexts(environ, before)

    refused = maoctl("context", *words.split())

    assert refused.code == code
    assert ("Did you mean known?" in refused.err) == (code == 3)
    assert read_contexts(environ) == before


def test_context_add_reads_the_token_from_stdin(
    maoctl: Maoctl, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("mao_piped\n"))
    add(maoctl, "lab", OTHER, "--token-file", "-")
    assert read_contexts(environ).by_name["lab"].token == "mao_piped"
    add(maoctl, "lab", f"{OTHER}/x", "--replace")
    assert read_contexts(environ).by_name["lab"] == Context(f"{OTHER}/x")
