"""`maoctl write`, `read`, `inspect` and `dataset external`: data from and for external programs."""

from __future__ import annotations

import json
import secrets
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from mao_shared.errors import InvalidInput
from mao_shared.json_text import check_json, render_json
from maoctl import records
from maoctl.arguments import DatasetArgument
from maoctl.exits import CommandError, ExitCode
from maoctl.lookup import did_you_mean
from maoctl.output import print_facts, write
from maoctl.session import OutputOption, example, get_session
from maoctl.text import harmless_json, plain, relative
from maoctl.tree import App
from maoctl.views.contents import INSIGHT
from maoctl.views.registry import DATASET

InDataset = Annotated[
    str | None, typer.Option("--dataset", help="Dataset that contains it.", show_default=False)
]


def write_value(
    context: typer.Context,
    key: Annotated[str, typer.Argument(help="Key that a dataset declares.")],
    value: Annotated[
        str | None, typer.Argument(help="JSON or any text; - for stdin.", show_default=False)
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="Read the value from this file.", show_default=False)
    ] = None,
    text: Annotated[bool, typer.Option("--text", help="Send as text, even if it is valid JSON.")] = False,
    output: OutputOption = None,
) -> None:
    """Write a value to the dataset that declares the key; the node commits it.

    JSON is sent unchanged: 1.10 stays 1.10.
    """
    session = get_session(context, output)
    if (value is None) == (file is None):
        raise CommandError(
            ExitCode.USAGE, "Give either a value or --file.", "See its options: maoctl write --help"
        )
    typed = value if value not in (None, "-") else _read_text(file)
    parsed = json_of_typed(typed, text)
    receipt = session.client.external.write_json(key, parsed, idempotency_key=secrets.token_hex(16))
    session.data(receipt, lambda: write(f"{receipt.id} for {receipt.dataset}\n"))


def _read_text(file: Path | None) -> str:
    """Read a file, or stdin. Reads bytes, since Python would convert line ends."""
    try:
        return (sys.stdin.buffer.read() if file is None else file.read_bytes()).decode()
    except OSError as error:
        raise CommandError(ExitCode.USAGE, f"{file} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise InvalidInput(
            f"The value is not UTF-8 at byte {error.start}.",
            code="value-invalid",
            next="Convert it to UTF-8, for example with iconv.",
        ) from error


def json_of_typed(typed: str, text: bool) -> str:
    """Return the JSON text to send: what was typed if that is JSON, otherwise a JSON string of it.

    A string loses its last newline. Raises InvalidInput (`value-invalid`) for NaN, Infinity and unpaired
    surrogates.
    """
    bare = typed.removeprefix("\ufeff")
    try:
        if not text and _is_json(bare):
            check_json(bare)
            return bare.strip(" \t\r\n")
        end = "\r\n" if typed.endswith("\r\n") else "\n"
        spelt = json.dumps(typed.removesuffix(end), ensure_ascii=False)
        check_json(spelt)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(
            f"The value cannot be sent as JSON: {error}.",
            code="value-invalid",
            next="Use finite numbers and valid Unicode, or --text to send it as text.",
        ) from error
    return spelt


def _is_json(text: str) -> bool:
    """True if Python reads the text as JSON; it also accepts NaN and Infinity."""
    try:
        json.loads(text, parse_int=str)
    except json.JSONDecodeError:
        return False
    return True


def read(
    context: typer.Context,
    key: Annotated[str, typer.Argument(help="TOOL or DATASET of this node, or TOOL/NODE.")],
    dataset: InDataset = None,
    output: OutputOption = None,
) -> None:
    """Show the insights.json of a tool."""
    session = get_session(context, output)
    found = session.client.external.read(key, dataset=dataset)
    text = harmless_json(render_json(found.value, ensure_ascii=False, indent=2))
    session.data(found, lambda: write(text + "\n"))


def inspect(
    context: typer.Context,
    key: Annotated[
        str | None, typer.Argument(help="Tool or dataset [default: all].", show_default=False)
    ] = None,
    dataset: InDataset = None,
    output: OutputOption = None,
) -> None:
    """List the insights.json of tools on all nodes."""
    session = get_session(context, output)
    session.show(INSIGHT, session.client.external.inspect(key, dataset=dataset))


def external(
    context: typer.Context,
    name: DatasetArgument,
    key: Annotated[
        list[str] | None,
        typer.Option("--key", help="Accept values of this key; may be repeated.", show_default=False),
    ] = None,
    remove_key: Annotated[
        list[str] | None,
        typer.Option("--remove-key", help="No longer accept values of this key.", show_default=False),
    ] = None,
    output: OutputOption = None,
) -> None:
    """Declare the keys of 'maoctl write' for a dataset, or show them and the pending values."""
    session = get_session(context, output)
    if key or remove_key:

        def edit(old: dict[str, Any]) -> dict[str, Any]:
            declared, removed = [*(old.get("external") or []), *(key or [])], set(remove_key or [])
            if unknown := removed - set(declared):
                raise CommandError(
                    ExitCode.NOT_FOUND, f"{name} does not declare {', '.join(sorted(unknown))}."
                )
            return old | {"external": [kept for kept in dict.fromkeys(declared) if kept not in removed]}

        records.change(session, session.client.datasets, DATASET, name, edit)
        return
    with did_you_mean((name, session.client.datasets)):
        records.fetch(session.client.datasets, name)
        state = session.client.external.state(name)
    failure = state.failure
    facts = [
        ("keys", plain(state.keys)),
        ("pending", str(state.waiting)),
        ("since", relative(state.since, session.now)),
        ("reason", plain(failure and failure.detail)),
        ("next", plain(failure and failure.next)),
    ]
    session.data(state, lambda: print_facts(facts))


def add_to(app: App, dataset_app: App) -> None:
    """Add the commands to the root and to `maoctl dataset`."""
    app.command(
        "write",
        epilog=example(
            "maoctl write temperature '{\"celsius\": 21.5}'", "maoctl write temperature -f reading.json"
        ),
    )(write_value)
    app.command("read", epilog=example("maoctl read system-performance/node-2"))(read)
    app.command("inspect", lists=True, epilog=example("maoctl inspect", "maoctl inspect system-performance"))(
        inspect
    )
    dataset_app.command(
        epilog=example("maoctl dataset external sensors --key temperature", "maoctl dataset external sensors")
    )(external)
