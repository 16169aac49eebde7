"""`maoctl context`: the nodes that this user works with."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from maoctl.arguments import contexts, strip_kind
from maoctl.contexts import Context, context_file, read_contexts, write_contexts
from maoctl.exits import CommandError, ExitCode
from maoctl.output import Column, Document, TableView, say
from maoctl.session import (
    CliSession,
    OutputOption,
    YesOption,
    check_address,
    confirm,
    context_name,
    example,
    get_session,
)
from maoctl.tree import App

app = App(help="Nodes that you work with, by name; kept in your configuration directory.")

ContextArgument = Annotated[
    str,
    typer.Argument(
        metavar="NAME", help="Name of the context.", autocompletion=contexts, callback=strip_kind("context")
    ),
]


@dataclass(frozen=True)
class ContextRow:
    """A context as it is shown, without its token."""

    name: str
    url: str
    current: bool
    token: bool

    def document(self) -> Document:
        return {"name": self.name, "url": self.url, "current": self.current, "token": self.token}


VIEW: TableView[ContextRow] = TableView(
    "context",
    [
        Column("CURRENT", lambda row, _: "*" if row.current else "", keep_whole=True),
        Column("NAME", lambda row, _: row.name, keep_whole=True),
        Column("URL", lambda row, _: row.url, keep_whole=True),
        Column("TOKEN", lambda row, _: row.token),
    ],
    lambda row: row.name,
)


def _current(session: CliSession) -> str | None:
    """Return the context that commands use; None if the address comes from elsewhere."""
    if session.url or (session.environ.get("MAO_URL") and not session.context):
        return None
    return context_name(session.environ, session.context)


def _rows(session: CliSession) -> list[ContextRow]:
    known = read_contexts(session.environ)
    current = _current(session)
    return [
        ContextRow(name, context.url, name == current, context.token is not None)
        for name, context in sorted(known.by_name.items())
    ]


@app.command("list", lists=True, watched=False, epilog=example("maoctl context list"))
def list_(context: typer.Context, output: OutputOption = None) -> None:
    """List the contexts; * marks the one in use."""
    session = get_session(context, output)
    session.show(VIEW, _rows(session))
    for variable in ("MAO_URL", "MAO_GATEWAY_PORT"):
        if session.environ.get(variable) and not session.context:
            say(f"{variable} is set and used in place of the current context")


@app.command(epilog=example("maoctl context show", "maoctl context show lab"))
def show(
    context: typer.Context,
    name: Annotated[
        str | None,
        typer.Argument(
            help="Name of the context [default: the one in use].",
            autocompletion=contexts,
            callback=strip_kind("context"),
            show_default=False,
        ),
    ] = None,
    output: OutputOption = None,
) -> None:
    """Show a context."""
    session = get_session(context, output)
    known = read_contexts(session.environ)
    wanted = name or _current(session)
    if wanted is None:
        raise CommandError(
            ExitCode.NOT_FOUND,
            f"No context is in use; commands go to {session.config.url}.",
            "Choose one: maoctl context use NAME",
        )
    known.get(wanted)
    session.describe(VIEW, next(row for row in _rows(session) if row.name == wanted))


@app.command(
    epilog=example(
        "maoctl context add lab https://mao.lab.example.org --token-file token",
        "maoctl context add here http://127.0.0.1:8080",
    )
)
def add(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of the context.")],
    address: Annotated[str, typer.Argument(metavar="URL", help="Address of the node's gateway.")],
    token_file: Annotated[
        Path | None,
        typer.Option(
            help="File with the token, which is copied; - for stdin.", show_default=False, allow_dash=True
        ),
    ] = None,
    use: Annotated[bool, typer.Option("--use", help="Use it from now on.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Replace a context of this name.")] = False,
) -> None:
    """Add a context; the first one is used from then on."""
    from mao_shared.models import is_name

    session = get_session(context)
    known = read_contexts(session.environ)
    if not is_name(name):
        raise CommandError(
            ExitCode.USAGE, f"Invalid name {name!r}.", "Use letters, digits, '.', '_' and '-'."
        )
    if name in known.by_name and not replace:
        raise CommandError(ExitCode.CONFLICT, f"The context {name!r} exists.", "Replace it with --replace.")
    made = Context(check_address(address), None if token_file is None else _read_token(token_file))
    changed = known.with_context(name, made)
    path = write_contexts(session.environ, changed.using(name) if use else changed)
    say(f"context/{name} added to {path}")


def _read_token(path: Path) -> str:
    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(
            ExitCode.USAGE, f"The token file {path} cannot be read: {error}", "Correct --token-file."
        ) from error
    if not text.strip():
        raise CommandError(ExitCode.USAGE, f"The token file {path} is empty.", "Correct --token-file.")
    return text.strip()


@app.command(epilog=example("maoctl context use lab"))
def use(context: typer.Context, name: ContextArgument) -> None:
    """Use a context from now on."""
    session = get_session(context)
    write_contexts(session.environ, read_contexts(session.environ).using(name))
    say(f"context/{name} is used from now on")
    for variable in ("MAO_URL", "MAO_CONTEXT", "MAO_GATEWAY_PORT"):
        if session.environ.get(variable):
            say(f"{variable} is set and still goes before it")


@app.command(epilog=example("maoctl context remove lab --yes"))
def remove(context: typer.Context, name: ContextArgument, yes: YesOption = False) -> None:
    """Remove a context with its token; the node is not changed."""
    session = get_session(context)
    known = read_contexts(session.environ)
    left = known.without(name)
    confirm(f"Remove context {name} from {context_file(session.environ)}?", yes)
    write_contexts(session.environ, left)
    say(f"context/{name} removed")
