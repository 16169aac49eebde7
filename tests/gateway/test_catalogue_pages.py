"""The catalogue's pages, and the commands that pages show."""

from __future__ import annotations

import re
import shlex
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from mao_gateway.pages.first_run.catalogue import MAX_LISTED, describe_needs, install_body, install_line
from mao_gateway.pages.first_run.steps import welcome_address
from mao_shared.models.catalogue import CatalogueEntry
from tests.support.memory_node import memory_node


def entry(*items: tuple[str, str, str], **more: Any) -> CatalogueEntry:
    fields = [{"kind": kind, "name": name, "state": state} for kind, name, state in items]
    return CatalogueEntry.model_validate(
        {"kind": "pipelines", "name": "p", "state": "ready", "items": fields} | more
    )


@pytest.mark.parametrize(
    ("items", "texts"),
    [
        ([], ["nothing missing"]),
        ([("tool", "a", "unchanged"), ("image", "i", "unchanged")], ["nothing missing"]),
        ([("dataset", "d", "created")], ["dataset d will be made here"]),
        ([("tool", "a", "created"), ("tool", "b", "created")], ["2 tools will be registered"]),
        ([("image", "i", "pulled")], ["image i will be pulled"]),
        ([("secret", "crawler-key", "missing")], ["asks for the secret crawler-key"]),
        ([("privilege", "docker socket", "missing")], ["asks for docker socket"]),
        ([("tool", "a", "differs")], ["tool a: another one is registered"]),
    ],
)
def test_needs(items: list[tuple[str, str, str]], texts: list[str]) -> None:
    assert [need.text for need in describe_needs(entry(*items))] == texts


def test_needs_of_installed_and_unusable() -> None:
    assert [need.text for need in describe_needs(entry(("tool", "a", "unchanged"), state="installed"))] == [
        "installed"
    ]
    faults = [f"fault {number}" for number in range(20)]
    assert len(describe_needs(entry(state="unusable", faults=faults))) == MAX_LISTED


def test_install_body_of_form() -> None:
    fields = {
        "name": "p",
        "source": "lab",
        "dataset-1": "raw",
        "where-raw": "remote",
        "remote-raw": "git@git.example.org:raw.git",
        "dataset-2": "sums",
        "where-sums": "here",
        "remote-sums": "typed, then decided otherwise",
        "tool-1": "nobody",
        "image-nobody": "lab/nobody:1",
        "agree-1": "docker socket",
        "existing": "replace",
    }
    assert install_body(fields) == {
        "name": "p",
        "source": "lab",
        "local": True,
        "datasets": {"raw": "git@git.example.org:raw.git"},
        "images": {"nobody": "lab/nobody:1"},
        "agree": ["docker socket"],
        "existing": "replace",
    }
    assert install_body({}) == {"name": "", "local": True, "datasets": {}, "images": {}, "agree": []}


def test_install_line() -> None:
    assert install_line(entry(("dataset", "d", "unchanged"))) == "maoctl catalogue install p"
    needs = (("dataset", "d", "missing"), ("privilege", "docker socket", "missing"))
    assert install_line(entry(*needs)) == "maoctl catalogue install p --local --agree 'docker socket'"


def test_welcome_address() -> None:
    assert welcome_address() == welcome_address(tool="", run=None) == "/ui/welcome"
    assert welcome_address(tool="a&b", dataset="d") == "/ui/welcome?tool=a%26b&dataset=d"


HOSTILE = "x; touch y"


@pytest.mark.parametrize(
    "address",
    [
        "/ui/catalogue?q={}",
        "/ui/runs?pipeline={}",
        "/ui/audit?subject={}",
        "/ui/audit?actor={}",
        "/ui/alarms?of={}",
        "/ui/welcome?pipeline={}&tool={}&dataset={}",
    ],
)
async def test_commands_of_pages_quote_what_an_address_says(tmp_path: Path, address: str) -> None:
    """A link from elsewhere must not make a command that does something else when it is pasted."""
    async with memory_node(tmp_path) as node:
        answer = await node.client.get(address.replace("{}", quote(HOSTILE)))
    assert answer.status_code == 200
    lines = [unescape(line) for line in re.findall(r'<p class="cmd"><span>(.*?)</span>', answer.text)]
    for line in lines:
        words = [word.removeprefix("--").rpartition("=")[2] for word in shlex.split(line)]
        assert "touch" not in line or HOSTILE in words
