"""Help, synonyms, near misses and the version: what every command line has in common."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from maoctl.build import find_commit
from maoctl.main import _NOUNS
from maoctl.tree import SYNONYMS, translate_habits

from . import documents
from .conftest import Maoctl
from .gateways import RememberingGateway

HIDDEN = {"ls", "describe", "rm", "delete", "set", "tools"}


@pytest.mark.parametrize("flag", ["-h", "--help"])
@pytest.mark.parametrize("words", ["", "tool", "tool add", "vote", "job preview", "apply"])
def test_help_options(maoctl: Maoctl, words: str, flag: str) -> None:
    shown = maoctl(*words.split(), flag)

    assert (shown.code, shown.err) == (0, "")
    assert shown.out.startswith(f"Usage: {' '.join(['maoctl', *words.split()])}")


@pytest.mark.parametrize("noun", ["", *_NOUNS])
def test_bare_group_prints_its_help(maoctl: Maoctl, noun: str) -> None:
    shown = maoctl(*noun.split())

    assert (shown.code, shown.err) == (0, "")
    assert shown.out == maoctl(*noun.split(), "--help").out
    listed = {line.split()[0] for line in shown.out.splitlines() if line.startswith("  ") and line.split()}
    assert not listed & (HIDDEN - {"set"} if noun == "secret" else HIDDEN)


def test_version_option_names_the_commit(maoctl: Maoctl) -> None:
    maoctl.environ["MAO_COMMIT"] = "c0ffee"
    assert maoctl("--version").out == "maoctl 0.1.0 (commit c0ffee)\n"


def test_find_commit_of_this_checkout_only(tmp_path: Path) -> None:
    here = find_commit({})
    assert here
    assert find_commit({"MAO_COMMIT": "c0ffee"}) == "c0ffee"
    assert find_commit({}, tmp_path) is None
    untracked = Path(__file__).parents[1] / "cli"  # tracked files, but not the package's
    assert find_commit({}, untracked / "none") is None


@pytest.mark.parametrize(("one", "other"), list(itertools.permutations(SYNONYMS[0], 2)))
@pytest.mark.parametrize("noun", ["tool", "dataset", "pipeline", "run", "job", "node", "alarm", "webhook"])
def test_synonyms_of_list(
    maoctl: Maoctl, gateway: RememberingGateway, noun: str, one: str, other: str
) -> None:
    empty: documents.Json = {"items": [], "cursor": None}
    for path in ("/registry/tools", "/registry/datasets", "/datasets", "/pipeline", "/runs", "/jobs"):
        gateway.answer("GET", path, empty)
    for path in ("/federation/nodes", "/alarms", "/webhooks"):
        gateway.answer("GET", path, empty)

    first, second = (maoctl(noun, verb, "-o", "json") for verb in (one, other))

    assert (first.code, first.out) == (second.code, second.out) == (0, "[]\n")
    assert maoctl(f"{noun}s", one, "-o", "json").out == "[]\n"


@pytest.mark.parametrize("verb", SYNONYMS[1])
def test_synonyms_of_show(maoctl: Maoctl, gateway: RememberingGateway, verb: str) -> None:
    gateway.keep("/registry/tools", documents.tool())
    assert json.loads(maoctl("tool", verb, "tool/crawler", "-o", "json").out)["name"] == "crawler"


@pytest.mark.parametrize("verb", SYNONYMS[2])
def test_synonyms_of_remove(maoctl: Maoctl, gateway: RememberingGateway, verb: str) -> None:
    gateway.keep("/registry/tools", documents.tool())
    assert maoctl("tool", verb, "tool/crawler", "--yes").code == 0
    assert gateway.kept["/registry/tools"] == {}


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("get tools", "tool get"),
        ("describe run x -o json", "run describe x -o json"),
        ("delete tool/x --yes", "tool delete tool/x --yes"),
        ("get nonsense", "get nonsense"),
        ("read tool", "read tool"),
        ("get", "get"),
        ("help tool", "tool --help"),
        ("help", "--help"),
        ("logs 1f3a -f", "run logs 1f3a -f"),
        ("ps --limit 3", "run list --limit 3"),
        ("", ""),
    ],
)
def test_translate_habits(theirs: str, ours: str) -> None:
    assert translate_habits(theirs.split(), _NOUNS) == ours.split()


@pytest.mark.parametrize(
    ("words", "suggested"),
    [
        ("toool", "tool"),
        ("piplines", "pipeline"),
        ("tool descrbe", "show"),
        ("tool remov x", "remove"),
        ("tool delet x", "remove"),
        ("node lst", "list"),
        ("job lisst", "get"),
        ("tool get --outpt json", "--output"),
        ("run logs x --folow", "--follow"),
    ],
)
def test_near_misses_suggest_what_help_shows(maoctl: Maoctl, words: str, suggested: str) -> None:
    missed = maoctl(*words.split())

    assert missed.code == 2
    assert f"Did you mean {suggested}?\n" in missed.err


@pytest.mark.parametrize("words", ["tool adds", "run waits x", "doctors"])
def test_only_nouns_have_a_plural(maoctl: Maoctl, words: str) -> None:
    assert maoctl(*words.split()).code == 2


def test_nothing_is_suggested_for_what_is_like_nothing(maoctl: Maoctl) -> None:
    missed = maoctl("tool", "qqqqqq")
    assert "error: No such command 'qqqqqq'.\n" in missed.err


@pytest.mark.parametrize("option", ["--url", "--version"])
def test_global_option_behind_the_command(maoctl: Maoctl, option: str) -> None:
    missed = maoctl("tool", "get", option, "x")
    assert missed.code == 2
    assert f"It goes before the command: maoctl {option} …" in missed.err


def test_usage_names_no_hidden_words(maoctl: Maoctl) -> None:
    missed = maoctl("tools", "describe")
    assert "maoctl tool show" in missed.err
    assert "describe" not in missed.err
