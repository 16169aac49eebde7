"""Every block of the tutorial and the how-tos, executed on one node in one folder, in the order of reading.

A block with a title is a file that is written, one of class `background` runs until the end, `sh` is
executed, `text` is not. Each page is one shell that stops at the first command that fails.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.docker import Engine
from tests.support.node import PORTS_OF_A_NODE, REPO
from tests.support.ports import free_ports

pytestmark = [pytest.mark.e2e, pytest.mark.docker, pytest.mark.etcd, pytest.mark.timeout(600)]
DOCS = REPO / "docs"
HOW_TOS = ("write-a-tool", "schedule", "notify", "look-at-data", "recover")
PAGES = ("tutorial", *(f"how-to/{name}" for name in HOW_TOS))
IMAGES = ("lab/load:1", "lab/count:1", "lab/count:2", "lab/total:1")
BLOCK = re.compile(r"^``` (?:\{ (?P<attributes>[^}]*) \}|(?P<language>\w+))\n(?P<body>.*?)^```$", re.M | re.S)
# What differs from a reader's machine: no registry for the base image, and the repository is elsewhere.
PRELUDE = """
set -euo pipefail
make() { command make -C "$REPO" "$@"; }
docker() {
    if [ "$1" = build ]; then shift; command docker build --quiet --build-arg "BASE=$BASE" "$@"
    else command docker "$@"; fi
}
"""


@dataclass(frozen=True)
class Block:
    """A block of a page. `title`: the file it is written to."""

    language: str
    title: str | None
    background: bool
    body: str


def blocks(page: str) -> list[Block]:
    """Return the blocks of a page of docs/."""
    text = (DOCS / f"{page}.md").read_text()
    fences = len(re.findall(r"^```", text, re.M))
    found = []
    for match in BLOCK.finditer(text):
        attributes = match["attributes"] or f".{match['language']}"
        language = re.search(r"\.(\w+)", attributes)
        title = re.search(r'title="([^"]+)"', attributes)
        assert language is not None
        found.append(
            Block(
                language[1],
                title[1] if title else None,
                ".background" in attributes.split(),
                match["body"],
            )
        )
    assert 2 * len(found) == fences, f"{page} has a block of another form"
    return found


def script(page: str) -> str:
    """Return the shell script of a page."""
    lines = [PRELUDE, "" if page == "tutorial" else ". .venv/bin/activate"]
    for number, block in enumerate(blocks(page), 1):
        if block.title is not None:
            lines.append(f"cat >{block.title} <<'END_OF_BLOCK'\n{block.body}END_OF_BLOCK")
        elif block.language == "sh" and not block.background:
            lines.append(f"echo '== {page}, block {number}'\n{block.body}")
    return "\n".join(lines)


@dataclass(frozen=True)
class Place:
    """The folder and environment in which pages are executed."""

    folder: Path
    env: dict[str, str]

    def run(self, page: str) -> str:
        done = subprocess.run(
            ["bash", "-c", script(page)],
            cwd=self.folder,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=400,
        )
        assert done.returncode == 0, done.stdout[-4000:]
        return done.stdout


@pytest.fixture(scope="module")
def place(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Run the node as the tutorial says, in a folder with only what a clone has that readers use."""
    folder = tmp_path_factory.mktemp("reader")
    (folder / ".venv").symlink_to(sys.prefix)
    env = {
        **{name: value for name, value in os.environ.items() if not name.startswith("MAO_")},
        "MAO_VENV": sys.prefix,
        "MAO_VAR_DIR": os.environ.get("MAO_VAR_DIR", str(REPO / "var")),
        "MAO_DATA_DIR": str(folder / "node"),
        "MAO_NODE": "reader",
        "MAO_GATEWAY_PORT": str(free_ports(PORTS_OF_A_NODE)),
        "BASE": engine.base(),
        "REPO": str(REPO),
        "NO_COLOR": "1",
    }
    (node,) = [block for block in blocks("tutorial") if block.background]
    with (folder / "node.log").open("wb") as log:
        process = subprocess.Popen(
            ["bash", "-c", PRELUDE + node.body],
            cwd=folder,
            env=env,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield Place(folder, env)
    finally:
        os.killpg(process.pid, signal.SIGINT)
        process.wait(60)
        for image in IMAGES:
            subprocess.run(["docker", "image", "rm", "--force", image], capture_output=True)


def test_blocks_of_all_pages_run(place: Place) -> None:
    output = {page: place.run(page) for page in PAGES}
    assert "time,load1,load5" in output["tutorial"]
    assert (place.folder / "load-data" / "load.csv").read_text().count("\n") >= 4
    assert "total" in output["how-to/write-a-tool"]
    assert "Europe/Zurich" in output["how-to/schedule"]
    assert "nights" in output["how-to/notify"]
    assert (place.folder / "crate.zip").is_file()
    assert len(list((place.folder / "backup").iterdir())) == 1


def test_blocks_that_are_not_run_are_few_and_known() -> None:
    """Blocks of `text` need other machines; tests/federation and tests/e2e/test_backup run their commands."""
    pages = sorted(path.relative_to(DOCS).with_suffix("").as_posix() for path in DOCS.glob("how-to/*.md"))
    texts = {page: sum(block.language == "text" for block in blocks(page)) for page in ["tutorial", *pages]}
    assert {page: count for page, count in texts.items() if count} == {
        "how-to/join-a-federation": 4,
        "how-to/recover": 1,
    }
    assert set(pages) - set(PAGES) == {"how-to/join-a-federation"}
