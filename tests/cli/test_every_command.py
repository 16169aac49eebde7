"""Every command of the tree without a terminal: parseable output, a documented exit code, no traceback."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from maoctl.contexts import Context, Contexts, write_contexts
from maoctl.exits import ExitCode
from maoctl.main import app

from . import example_node as node
from .conftest import Maoctl, Terminal
from .gateways import RememberingGateway

WIDTH = 80
README = Path(__file__).parents[2] / "cli" / "README.md"
FORMATS = ("table", "wide", "json", "yaml", "name")

ARGUMENTS = {
    "tool": node.TOOL,
    "dataset": node.DATASET,
    "pipeline": node.PIPELINE,
    "run": node.RUN,
    "job": node.JOB,
    "node": node.NODE,
    "alarm": node.ALARM,
    "webhook": node.WEBHOOK,
    "channel": node.CHANNEL,
    "rule": node.RULE,
    "secret": node.SECRET,
    "context": "lab",
    "snapshot": node.COMMIT,
    "key": node.TOOL,
    "cron": "'30 2 * * *'",
}
"""The value of an argument by its name; one called `name` has that of the noun, the word before the verb."""
LINES = {
    "apply": "-f {records}",
    "diff": "-f {records}",
    "completion": "bash",
    "write": f"{node.TOOL} 21.5",
    "tool add": f"new-tool me {node.IMAGE}",
    "tool check": node.IMAGE,
    "dataset add": "new-data git@git.example.org:x.git",
    "dataset init": "new-data",
    "dataset cat": f"{node.DATASET} hourly.csv",
    "dataset diff": f"{node.DATASET} ground-truth {node.NODE}",
    "dataset history": f"{node.DATASET} observations/hourly.csv zurich-7 value",
    "dataset resolve": f"{node.DATASET} --merge",
    "dataset download": f"{node.DATASET} --out {{folder}}/data.zip",
    "catalogue show": node.PIPELINE,
    "catalogue install": node.PIPELINE,
    "pipeline create": f"new-pipeline --step {node.TOOL}:{node.DATASET}",
    "run export": f"{node.RUN} --out {{folder}}/crate.zip",
    "run reproduce": f"{node.RUN}",
    "job backfill": f"{node.JOB} --since 7d",
    "federation create": "observatories",
    "federation join": "mao1.token",
    "vote run": "--branches a,b --repo {folder}",
    "vote show": f"{node.DATASET}",
    "vote audit": f"{node.DATASET}",
    "vote list": f"{node.DATASET}",
    "vote ranking": f"{node.DATASET}",
    "vote schema": f"{node.DATASET}",
    "series show": node.SERIES,
    "context add": "new-lab https://lab.example.org",
    "alarm channel add": "phone ntfys://ntfy.example.org/alarms",
    "alarm rule set": f"{node.RULE} --channel {node.CHANNEL} --quiet 22:00-07:00 --reminder 12h",
    "alarm heartbeat set": f"{node.PIPELINE} https://hc.example.org/ping/8f2c",
    "webhook add": "new-hook https://lab.example.org/x",
    "secret set": f"{node.SECRET} --from-file {{folder}}/token",
    "node backup": "{folder}/backup.tar.gz",
    "node restore": "{folder}/none.tar.gz",
}
"""The arguments of commands for which the names are not enough."""
FAILING = {
    "diff": ExitCode.FAILED,  # the file differs from what the node has
    "vote run": ExitCode.NOT_FOUND,  # there is no repository
    "run cancel": ExitCode.CONFLICT,  # the run has ended
    "node restore": ExitCode.NOT_FOUND,  # there is no such backup
    "context show": ExitCode.NOT_FOUND,  # MAO_URL is set
    "node backup": ExitCode.NOT_FOUND,  # no node has run in the data directory
}
"""Commands that cannot succeed here, and the exit code that tells so."""


def leaves(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    for name, child in getattr(command, "commands", {}).items():
        if hasattr(child, "commands"):
            yield from leaves(child, (*path, name))
        elif not child.hidden:
            yield " ".join((*path, name)), child


DOCUMENTS = ("diff", "schema", "read")
"""Commands that print a document or text as it is, not a table."""
COMMANDS = dict(leaves(typer.main.get_command(app)))
WITH_OUTPUT = [path for path, command in COMMANDS.items() if any(p.name == "output" for p in command.params)]
LISTS = [path for path, command in COMMANDS.items() if any(p.name == "sort_by" for p in command.params)]


def command_line(path: str, tmp_path: Path, *, minimal: bool = False) -> list[str]:
    """Return a command with values for its required arguments, and with `--yes` where it would ask."""
    command = COMMANDS[path]
    noun = path.split()[-2:][0]
    words = [
        ARGUMENTS[noun if param.name == "name" else param.name]
        for param in command.params
        if param.param_type_name == "argument" and param.required and path not in LINES
    ]
    given = LINES.get(path, " ".join(words)).format(folder=tmp_path, records=tmp_path / "records.yaml")
    confirmed = ["--yes"] if any(param.name == "yes" for param in command.params) and not minimal else []
    return [*path.split(), *shlex.split(given), *confirmed]


@pytest.fixture
def prepared(
    maoctl: Maoctl, gateway: RememberingGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> RememberingGateway:
    """A node that answers every call, a file of records, and a working directory of its own."""
    (tmp_path / "records.yaml").write_text(
        f"{{kind: dataset, name: {node.DATASET}, master: /srv/other.git}}", "utf-8"
    )
    (tmp_path / "token").write_text("s3cret-canary", "utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", str(WIDTH))
    monkeypatch.setenv("MAO_DATA_DIR", str(tmp_path))
    maoctl.environ["MAOCTL_CONFIG"] = str(tmp_path / "contexts.json")
    write_contexts(maoctl.environ, Contexts({"lab": Context("https://mao.lab.example.org")}, "lab"))
    return node.answer_all(gateway)


def check_output(text: str, how: str, path: str) -> None:
    """Raise if a text is not in the format asked for."""
    assert "\x1b" not in text
    if how == "json":
        json.loads(text)
    elif how == "yaml":
        list(yaml.safe_load_all(text))
    elif how == "name" and path in LISTS:
        assert all(re.fullmatch(r"[a-z-]+/\S+", line) for line in text.splitlines())


@pytest.mark.parametrize("how", FORMATS)
@pytest.mark.parametrize("path", WITH_OUTPUT)
def test_every_output_is_parseable(
    maoctl: Maoctl, prepared: RememberingGateway, tmp_path: Path, path: str, how: str
) -> None:
    done = maoctl(*command_line(path, tmp_path), "-o", how)

    assert done.code == FAILING.get(path, ExitCode.OK), done.err
    assert "Traceback" not in done.err
    if done.out or (done.code == ExitCode.OK and how in ("json", "yaml")):
        check_output(done.out, how, path)


@pytest.mark.parametrize("path", [path for path in COMMANDS if path not in WITH_OUTPUT])
def test_commands_without_formats(
    maoctl: Maoctl, prepared: RememberingGateway, tmp_path: Path, path: str
) -> None:
    done = maoctl(*command_line(path, tmp_path))

    assert done.code == FAILING.get(path, ExitCode.OK), done.err
    assert "Traceback" not in done.err
    assert "\x1b" not in done.out


@pytest.mark.parametrize("path", COMMANDS)
def test_every_command_has_short_help(maoctl: Maoctl, path: str) -> None:
    shown = maoctl(*path.split(), "-h")

    assert (shown.code, shown.err) == (0, "")
    assert shown.out.startswith(f"Usage: maoctl {path} ")
    assert maoctl("help", *path.split()).out == shown.out


@pytest.mark.parametrize("path", COMMANDS)
def test_every_command_without_a_node(maoctl: Maoctl, tmp_path: Path, path: str) -> None:
    """Nothing answers: a message and a next step, whatever the command."""
    maoctl.url = "http://127.0.0.1:9"
    (tmp_path / "records.yaml").write_text("{kind: dataset, name: x, master: /x}", "utf-8")

    done = maoctl(*command_line(path, tmp_path))

    assert done.code in set(ExitCode)
    assert "Traceback" not in done.err
    if done.code == ExitCode.UNREACHABLE:
        assert "next: " in done.err


@pytest.mark.parametrize("path", [path for path in COMMANDS if "--yes" in command_line(path, Path("/x"))])
def test_no_command_asks_without_a_terminal(
    maoctl: Maoctl, prepared: RememberingGateway, tmp_path: Path, path: str
) -> None:
    done = maoctl(*command_line(path, tmp_path, minimal=True))

    assert done.code in (ExitCode.OK, ExitCode.USAGE)
    assert done.code == ExitCode.OK or "use --yes" in done.err
    if done.code == ExitCode.USAGE:
        assert all(call.method == "GET" for call in prepared.calls)


@pytest.mark.parametrize("path", WITH_OUTPUT)
def test_tables_fit_a_terminal_of_80_columns(
    maoctl: Maoctl, prepared: RememberingGateway, terminal: Terminal, tmp_path: Path, path: str
) -> None:
    maoctl(*command_line(path, tmp_path))

    if path in DOCUMENTS:
        return
    lines = terminal.shown.splitlines()
    assert [line for line in lines if len(line) > WIDTH] == []
    assert [line for line in lines if re.fullmatch(r"\s*\S\s*", line)] == []  # not one letter a line


@pytest.mark.parametrize("path", LISTS)
def test_wide_shows_every_column_uncut(
    maoctl: Maoctl, prepared: RememberingGateway, terminal: Terminal, tmp_path: Path, path: str
) -> None:
    line = command_line(path, tmp_path)
    maoctl(*line, "--wide")
    wide = terminal.shown

    assert "…" not in wide.replace("/…", "/")  # a masked URL
    assert len(wide.splitlines()) >= 2
    maoctl(*line, "-o", "wide")
    assert terminal.shown == wide * 2


@pytest.mark.parametrize("path", LISTS)
def test_lists_sort_by_each_column_and_field(
    maoctl: Maoctl, prepared: RememberingGateway, tmp_path: Path, path: str
) -> None:
    line = command_line(path, tmp_path)
    titles = re.split(r"\s{2,}", maoctl(*line, "-o", "wide").out.splitlines()[0].strip())
    fields = [key for key in json.loads(maoctl(*line, "-o", "json").out)[0] if key != "kind"]

    for name in (*titles, *titles[0:1], *fields):
        for sign in ("", "-"):
            done = maoctl(*line, f"--sort-by={sign}{name}")
            assert done.code == 0, done.err
    missed = maoctl(*line, "--sort-by", "nothing-of-this")
    assert missed.code == ExitCode.USAGE
    assert "There is no column or field" in missed.err


def test_exit_codes_are_documented() -> None:
    text = README.read_text("utf-8")
    documented = text[text.index("**Exit codes**") :].split("\n\n")[0]
    assert set(map(int, re.findall(r"\b(\d+) [a-z]", documented))) == set(map(int, ExitCode))


def test_command_lines_cover_the_tree() -> None:
    assert set(LINES) | set(FAILING) <= set(COMMANDS)
    assert len(COMMANDS) > 80
