"""`maoctl write`, `read` and `inspect`, and `maoctl dataset external`: data from and for programs outside."""

from __future__ import annotations

import json
import secrets
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from mao_shared.errors import InvalidInput
from mao_shared.json_text import check_json, render_json
from maoctl import records, views
from maoctl.arguments import DatasetArgument
from maoctl.exits import CommandError, ExitCode
from maoctl.lookup import did_you_mean, names_of, segment
from maoctl.output import print_facts, write
from maoctl.session import CliSession, OutputOption, example, session_of
from maoctl.text import harmless_json, plain, relative

InDataset = Annotated[str | None, typer.Option("--dataset", help="Where it lies.", show_default=False)]


def write_value(
    context: typer.Context,
    key: Annotated[str, typer.Argument(help="Key that a dataset declares.")],
    value: Annotated[
        str | None, typer.Argument(help="JSON, or any text; - reads it from stdin.", show_default=False)
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="Read it from this file.", show_default=False)
    ] = None,
    text: Annotated[bool, typer.Option("--text", help="Text, even if it looks like JSON.")] = False,
    output: OutputOption = None,
) -> None:
    """Hand a value over to the node, which commits it to the dataset that declares the key.

    JSON goes as it is spelt: 1.10 stays 1.10.
    """
    session = session_of(context)
    if (value is None) == (file is None):
        raise CommandError(
            ExitCode.USAGE, "Give the value, or the file that has it.", "See: maoctl write --help"
        )
    typed = value if value not in (None, "-") else _decoded(_content(file))
    parsed = json_of_typed(typed, text)
    receipt = session.client.write_json(key, parsed, idempotency_key=secrets.token_hex(16))
    session.data(
        receipt.model_dump(mode="json"), output, lambda: write(f"{receipt.id} for {receipt.dataset}\n")
    )


def _content(file: Path | None) -> bytes:
    """Of the file, else of stdin: as bytes, since Python would change the ends of lines."""
    if file is None:
        return sys.stdin.buffer.read()
    try:
        return file.read_bytes()
    except OSError as error:
        raise CommandError(ExitCode.USAGE, f"{file} cannot be read: {error.strerror}.") from error


def _decoded(content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise InvalidInput(
            f"The value is not UTF-8 at byte {error.start}.",
            code="value-invalid",
            next="Convert it, such as with: iconv -t UTF-8",
        ) from error


def json_of_typed(typed: str, text: bool) -> str:
    """The JSON text to be sent: what was typed where it is JSON, else a text without its last newline.

    Raises InvalidInput (`value-invalid`) for what JSON cannot hold: NaN, Infinity, half a letter.
    """
    bare = typed.removeprefix("\ufeff")
    try:
        if not text and _looks_like_json(bare):
            check_json(bare)
            return bare.strip(" \t\r\n")
        end = "\r\n" if typed.endswith("\r\n") else "\n"
        spelt = json.dumps(typed.removesuffix(end), ensure_ascii=False)
        check_json(spelt)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(
            f"The value cannot be sent as JSON: {error}.",
            code="value-invalid",
            next="Send finite numbers and whole letters; with --text it goes as a text.",
        ) from error
    return spelt


def _looks_like_json(text: str) -> bool:
    """Whether it is JSON as Python reads it, which takes NaN and Infinity."""
    try:
        json.loads(text, parse_int=str)
    except json.JSONDecodeError:
        return False
    return True


def read(
    context: typer.Context,
    key: Annotated[str, typer.Argument(help="Tool or dataset, or tool/node; else this node's.")],
    dataset: InDataset = None,
    output: OutputOption = None,
) -> None:
    """Show what a tool left as insights.json."""
    session = session_of(context)
    found = session.client.read_insight(key, dataset=dataset)
    session.data(found, output, lambda: write(_json(found["value"]) + "\n"))


def _json(value: Any) -> str:
    return harmless_json(render_json(value, ensure_ascii=False, indent=2))


def inspect(
    context: typer.Context,
    key: Annotated[str | None, typer.Argument(help="Tool or dataset; else all.", show_default=False)] = None,
    dataset: InDataset = None,
    output: OutputOption = None,
) -> None:
    """List what tools left as insights.json, on all nodes."""
    session = session_of(context)
    session.show(views.INSIGHT, session.client.insights(key, dataset=dataset), output)


def external(
    context: typer.Context,
    name: DatasetArgument,
    key: Annotated[
        list[str] | None,
        typer.Option("--key", help="Takes this key's values; may be repeated.", show_default=False),
    ] = None,
    remove_key: Annotated[
        list[str] | None, typer.Option("--remove-key", help="No longer does.", show_default=False)
    ] = None,
    output: OutputOption = None,
) -> None:
    """Declare the keys of `maoctl write` that go to a dataset, or show them and what waits."""
    session = session_of(context)
    if key or remove_key:
        added, gone = key or [], set(remove_key or [])
        records.change(
            session,
            session.client.datasets,
            views.DATASET,
            name,
            lambda old: old | {"external": _changed(name, old.get("external") or [], added, gone)},
            output,
        )
        return
    _show(session, name, output)


def _changed(name: str, old: list[str], added: list[str], gone: set[str]) -> list[str]:
    if unknown := gone - set(old) - set(added):
        raise CommandError(ExitCode.NOT_FOUND, f"{name} does not declare {', '.join(sorted(unknown))}.")
    return [each for each in dict.fromkeys([*old, *added]) if each not in gone]


def _show(session: CliSession, name: str, output: OutputOption) -> None:
    with did_you_mean((name, names_of(session.client.datasets))):
        records.fetch(session.client.datasets, name)
        state = session.client.external_state(segment(name))
    failure = state.failure
    since = state.model_dump(mode="json")["since"]
    facts = [
        ("keys", plain(list(state.keys))),
        ("waiting", str(state.waiting)),
        ("since", relative(since, session.now)),
        ("why", failure.detail if failure else ""),
        ("next", (failure.next or "") if failure else ""),
    ]
    session.data(state.model_dump(mode="json"), output, lambda: print_facts(facts))


def add_to(app: typer.Typer, dataset_app: typer.Typer) -> None:
    """Adds the commands to the root and to `maoctl dataset`."""
    app.command(
        "write",
        epilog=example(
            "maoctl write temperature '{\"celsius\": 21.5}'", "maoctl write temperature -f reading.json"
        ),
    )(write_value)
    app.command("read", epilog=example("maoctl read system-performance/node-2"))(read)
    app.command("inspect", epilog=example("maoctl inspect", "maoctl inspect system-performance"))(inspect)
    dataset_app.command(
        epilog=example("maoctl dataset external sensors --key temperature", "maoctl dataset external sensors")
    )(external)
