"""Command lines in messages and helps: each names a command and options that `maoctl` has."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from maoctl.main import app

ROOT = Path(__file__).parents[2]
SOURCES = ("shared", "git", "vote", "cli", "node", "services")
PLACEHOLDER = "{}"
NEXT = ("next", "next_step")
UNKNOWN = (PLACEHOLDER, "…")
# The words from "maoctl" to the end of the quotes, of the sentence or of the line.
COMMAND_LINE = re.compile(r"(?<![\w/.-])maoctl((?: (?:[^\s.,;:()|&'\"`]|[.,:](?=\S))+)+)")
BARE_COMMAND = re.compile(r": (?:maoctl|git|docker|rm|ssh-keygen|sudo|--\w|/\w)[^:]*[^.]$")
MIN_FOUND = 200  # fewer command lines or next steps: the search is broken


def text_of(node: ast.AST) -> str | None:
    """Return the text of a literal with `{}` for what is filled in; None for other nodes."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part) or PLACEHOLDER for part in node.values)
    return None


def literals(node: ast.AST, docstrings: bool) -> Iterator[tuple[int, str]]:
    """Yield line and text of each literal below a node, of docstrings only if asked for."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Expr) and text_of(child.value) is not None and not docstrings:
            continue
        text = text_of(child)
        if text is not None and not isinstance(node, ast.JoinedStr):
            yield getattr(child, "lineno", 0), text
        yield from literals(child, docstrings)


def command_lines(text: str) -> list[list[str]]:
    """Return the words after each `maoctl` in a text."""
    return [found[1].split() for found in COMMAND_LINE.finditer(" ".join(text.split()))]


@functools.cache
def root() -> Any:
    return typer.main.get_command(app)


def reason_refused(words: list[str]) -> str | None:
    """Return why `maoctl` refuses these words; None if it accepts all up to the first placeholder.

    Options behind a placeholder are looked up as well, where the command is known by then.
    """
    command, rest = root(), iter(words)
    for word in rest:
        commands = getattr(command, "commands", {})
        if word.startswith("-") and word != "-":
            name, value_follows = word.partition("=")[:2]
            known = {option: parameter for parameter in command.params for option in parameter.opts}
            if name not in known and name != "--help":
                return f"{command.name} has no option {word}"
            if name in known and not (value_follows or known[name].is_flag):
                next(rest, None)
        elif commands and word in UNKNOWN:
            return None
        elif commands and word not in commands:
            return f"{command.name} has no command {word}"
        elif commands:
            command = commands[word]
    return None


def sources() -> Iterator[Path]:
    yield from sorted(path for folder in SOURCES for path in (ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize(
    "text",
    [
        "Use maoctl dataset archive NAME.",
        "Use: 'maoctl pipeline approve {} --agree-all', then try again.",
        "maoctl vote --now",
        "maoctl fetch",
        "or run\n    maoctl tool get --url x",
    ],
)
def test_reason_refused_unknown_command_or_option(text: str) -> None:
    assert [reason_refused(words) is not None for words in command_lines(text)] == [True]


@pytest.mark.parametrize(
    "text",
    [
        "Run 'maoctl doctor', or try again.",
        "maoctl {} get {} --not-known-before-it-is-filled-in",
        "maoctl run logs {} -f --node=NODE; nothing else",
        "maoctl -o json tool get",
        "maoctl dataset cat NAME a.b --ref main.",
    ],
)
def test_reason_refused_none_for_known_ones(text: str) -> None:
    assert [reason_refused(words) for words in command_lines(text)] == [None]


def test_command_lines_in_texts_are_accepted() -> None:
    refused, found = [], 0
    for path in sources():
        helps = path.parent.name == "commands"  # Typer shows their docstrings
        for line, text in literals(ast.parse(path.read_text("utf-8")), docstrings=helps):
            for words in command_lines(text):
                found += 1
                if reason := reason_refused(words):
                    refused.append(f"{path.relative_to(ROOT)}:{line}: {' '.join(words)}: {reason}")
    assert refused == []
    assert found >= MIN_FOUND


def next_steps(node: ast.AST) -> Iterator[str]:
    """Yield the literals that a call passes as the next step of a message."""
    if isinstance(node, ast.Call):
        given = [keyword.value for keyword in node.keywords if keyword.arg in NEXT]
        if isinstance(node.func, ast.Name) and node.func.id == "CommandError":
            given += node.args[2:3]
        yield from filter(None, map(text_of, given))


def test_next_steps_are_sentences_or_end_in_a_command() -> None:
    """A command that ends the text has no full stop, so that it can be copied."""
    wrong, found = [], 0
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            for text in next_steps(node):
                found += 1
                begins = text[0].isupper() or text.startswith(PLACEHOLDER)
                ends = text.endswith((".", "?", PLACEHOLDER)) or BARE_COMMAND.search(text)
                if not begins or not ends:
                    wrong.append(f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}: {text}")
    assert wrong == []
    assert found >= MIN_FOUND
