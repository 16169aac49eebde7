"""The session of a command: gateway and token, clock, output format; common options and confirmation."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar
from urllib.parse import urlsplit

import typer

from mao_shared import request_context
from mao_shared.clock import Clock, SystemClock
from mao_shared.tracing import TraceContext

from . import output
from .contexts import CONTEXT, Context, read_contexts
from .exits import CommandError, ExitCode
from .listing import Listing, Shown
from .output import Format, TableView, say, to_document, with_kind
from .text import span

if TYPE_CHECKING:
    from mao_shared.clients.gateway import MaoClient
    from mao_shared.clients.gateway_http import StalenessCallback

T = TypeVar("T")

DEFAULT_PORT = "8080"
LOOPBACK = ("127.0.0.1", "localhost", "::1", "0.0.0.0")  # noqa: S104
NODE_TOKEN = "gateway.token"  # noqa: S105 (a file of the node's data directory)


@dataclass(frozen=True)
class Config:
    """`url` has no trailing slash; `token` is None if calls are sent without one."""

    url: str
    token: str | None = field(default=None, repr=False)


def load_config(environ: Mapping[str, str], url: str | None = None, context: str | None = None) -> Config:
    """Return the gateway's address and token. `url`, `context`: the options `--url` and `--context`.

    The address is that of the first that is given: --url, --context, MAO_URL, MAO_CONTEXT, this machine's
    node at MAO_GATEWAY_PORT, the current context; else this machine's node. A context's own token goes before
    that of the environment.

    Raises CommandError for an invalid address, an unknown context or an unreadable file.
    """
    if url and context:
        raise CommandError(ExitCode.USAGE, "--url and --context cannot be combined.", "Omit one of them.")
    if url is None and context is None:
        url = environ.get("MAO_URL") or None
    chosen = None if url else find_context(environ, context)
    default = f"http://127.0.0.1:{environ.get('MAO_GATEWAY_PORT') or DEFAULT_PORT}"
    address = check_address(url or (chosen.url if chosen else default))
    token = chosen.token if chosen and chosen.token else _token(environ) or _node_token(environ, address)
    return Config(address, token)


def find_context(environ: Mapping[str, str], name: str | None) -> Context | None:
    """Return the context to use unless an address is given. `name`: the option `--context`."""
    wanted = context_name(environ, name)
    return None if wanted is None else read_contexts(environ).get(wanted)


def context_name(environ: Mapping[str, str], name: str | None) -> str | None:
    """Return the name of the context to use; None for this machine's node."""
    named = name or environ.get(CONTEXT)
    return named or (None if environ.get("MAO_GATEWAY_PORT") else read_contexts(environ).current)


def check_address(address: str) -> str:
    """Return a gateway's address without a trailing slash. Raises CommandError if it is invalid."""
    try:
        parts = urlsplit(address)
        is_valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_valid = False
    if not is_valid:
        raise CommandError(
            ExitCode.USAGE,
            f"Invalid gateway address {address!r}.",
            "Use an address like http://127.0.0.1:8080 in --url or MAO_URL.",
        )
    return address.rstrip("/")


def _token(environ: Mapping[str, str]) -> str | None:
    if token := environ.get("MAO_TOKEN", "").strip():
        return token
    path = environ.get("MAO_TOKEN_FILE")
    if not path:
        return None
    try:
        return Path(path).expanduser().read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(
            ExitCode.AUTH, f"The token file {path} cannot be read: {error}", "Correct MAO_TOKEN_FILE."
        ) from error


def _node_token(environ: Mapping[str, str], url: str) -> str | None:
    """Return the token that a node on this machine keeps for its user, if it can be read.

    It comes with its owner: from the environment under compose, otherwise from the data directory. It is only
    sent if all listeners on the port, on any loopback address, belong to this owner: `localhost` may be ::1,
    where another user's program may listen.
    """
    parts = urlsplit(url)
    if parts.hostname not in LOOPBACK:
        return None
    user_id, colon, token = environ.get("MAO_NODE_TOKEN", "").partition(":")
    if colon and user_id.isdecimal():
        owner = int(user_id)
    else:
        data_dir = environ.get("MAO_DATA_DIR") or environ.get("importdir") or "var/node"
        try:
            with Path(data_dir, NODE_TOKEN).open(encoding="utf-8") as file:
                token, owner = file.read().strip(), os.fstat(file.fileno()).st_uid
        except (OSError, UnicodeDecodeError):
            return None
    from mao_shared.host.sockets import listening_uids  # rarely needed, and start-up time counts

    return token if token and listening_uids(parts.port or 80) == {owner} else None


TIMEOUT = 30.0  # seconds for a response


def connect(
    config: Config,
    *,
    timeout: float = TIMEOUT,
    attempts: int = 3,
    on_stale: StalenessCallback | None = None,
) -> MaoClient:
    """Return a client that does not report retries. Arguments as for MaoClient.

    Imports the client late, since that takes 0.2 s.
    """
    from stamina.instrumentation import set_on_retry_hooks

    from mao_shared.clients.gateway import MaoClient

    set_on_retry_hooks(())
    return MaoClient(
        config.url,
        token=config.token,
        timeout=timeout,
        attempts=attempts,
        on_stale=on_stale,
        agent="maoctl",
    )


OutputOption = Annotated[
    Format | None,
    typer.Option("-o", "--output", help="table | wide | json | yaml | name", show_default=False),
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]


@dataclass
class CliSession:
    """Settings and state of one command line. `pause`: sleeps for some seconds; replaced in tests."""

    environ: Mapping[str, str]
    clock: Clock = field(default_factory=SystemClock)
    pause: Callable[[float], None] = time.sleep
    url: str | None = None  # option --url
    context: str | None = None  # option --context
    output: Format = Format.TABLE
    listing: Listing = field(default_factory=Listing)
    shown: Shown | None = None  # with --watch
    is_stale: bool = False  # whether a response was made of copies, since the federation does not answer

    @cached_property
    def config(self) -> Config:
        return load_config(self.environ, self.url, self.context)

    @cached_property
    def client(self) -> MaoClient:
        # By this variable, CI systems and tracing tools name the span that starts a program.
        caller = TraceContext.parse(self.environ.get("TRACEPARENT"))
        request_context.set_traceparent(None if caller is None else str(caller))
        return connect(self.config, on_stale=self.warn_stale)

    def warn_stale(self, as_of: datetime, removed_from: str) -> None:
        """Warn once that the output is what the node last knew of its federation."""
        if self.is_stale:
            return
        self.is_stale = True
        removed = f"this node was removed from {removed_from!r}"
        reason = removed if removed_from else "the federation does not answer"
        say(f"{reason}; this is as of {span(self.now - as_of)} ago")
        if removed_from:
            say("next: maoctl federation leave, then join with a new token")

    @property
    def now(self) -> datetime:
        return self.clock.now()

    def close(self) -> None:
        if "client" in self.__dict__:
            self.client.close()

    def show(self, view: TableView[T], records: Iterable[T], limit: int | None = None) -> None:
        """Print the first `limit` records in the order and period of the options; with --watch what changed.

        Says on stderr which listed records cannot be read.
        """
        chosen = self.listing.select(view, records, self.now, limit)
        if self.shown is None:
            output.print_records(view, chosen, self.output, self.now)
        else:
            is_full = limit is not None and len(chosen) >= limit  # newer ones take the places of others
            self._show_changes(self.shown, view, chosen, report_gone=not is_full)
        if "client" in self.__dict__:
            for item in self.client.http.take_unreadable():
                say(f"{item.name} cannot be read: {item.unreadable}")
                say(f"next: {item.next}")

    def _show_changes(self, shown: Shown, view: TableView[T], records: list[T], *, report_gone: bool) -> None:
        is_first = not shown.documents
        changed, gone = shown.changed(view, records)
        if changed or not is_first:
            shown.widths = output.print_changes(view, changed, self.output, self.now, shown.widths)
        for name in gone if report_gone else []:
            say(f"{name} is no longer listed")

    def show_one(self, view: TableView[T], record: T) -> None:
        output.print_record(view, record, self.output, self.now)

    def describe(self, view: TableView[T], record: T) -> None:
        """Print all fields of a record."""
        if self.output.for_people:
            output.print_facts(output.flatten_facts(to_document(record)))
        else:
            self.show_one(view, record)

    def done(self, view: TableView[T], record: T, what: str) -> None:
        """Report on stderr what was done with a record; with -o json or yaml also print the record."""
        say(f"{view.name(record)} {what}")
        if not self.output.for_people:
            self.show_one(view, record)

    def data(self, data: Any, otherwise: Callable[[], None]) -> None:
        """Print a record or plain data with -o json or yaml; otherwise call `otherwise` to print it.

        The kind of a record without a table is named after its class: `pipeline-diff`.
        """
        how = self.output
        if how in (Format.JSON, Format.YAML) and isinstance(data, dict | list):
            output.print_data(data, how)
        elif how in (Format.JSON, Format.YAML):
            kind = re.sub("(?<=[a-z])(?=[A-Z])", "-", type(data).__name__).lower()
            output.print_data(with_kind(kind, to_document(data)), how)
        else:
            otherwise()


def get_session(context: typer.Context, output: Format | None = None) -> CliSession:
    """Return the session of the command line. `output`: the command's own option."""
    session = context.find_object(CliSession)
    if session is None:
        raise RuntimeError("maoctl's commands are started through maoctl.main.run_command")
    session.output = output or session.output
    return session


def example(*lines: str) -> str:
    """Return the epilog of a help text: example command lines, not wrapped."""
    return "\b\nExample:\n" + "\n".join(f"  {line}" for line in lines)


def confirm(question: str, yes: bool) -> None:
    """Ask on a terminal; elsewhere require `--yes`. Raises CommandError if the answer is no."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise CommandError(ExitCode.USAGE, f"{question} stdin is not a terminal; use --yes.")
    if not typer.confirm(question, err=True):
        raise CommandError(ExitCode.FAILED, "Nothing was changed.")
