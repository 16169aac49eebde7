"""What a command works with: the gateway, the clock, the format asked for. Made once by `main`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mao_shared.clock import Clock, SystemClock

from .config import Config, load_config
from .output import (
    Format,
    Record,
    TableView,
    facts_of,
    print_data,
    print_facts,
    print_record,
    print_records,
    say,
)
from .text import span

if TYPE_CHECKING:
    from mao_shared.clients.gateway import MaoClient
    from mao_shared.models import Record as Model

OutputOption = Annotated[
    Format | None,
    typer.Option("-o", "--output", help="table | wide | json | yaml | name", show_default=False),
]
APPLIED = ("tool", "dataset", "pipeline")
"""The kinds that `maoctl apply` takes, in an order in which none refers to a later one."""
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@dataclass
class CliSession:
    """`pause` waits that many seconds before a stream is opened again; tests put their own in."""

    environ: Mapping[str, str]
    clock: Clock = field(default_factory=SystemClock)
    pause: Callable[[float], None] = time.sleep
    url: str | None = None  # option --url
    output: Format = Format.TABLE
    _age_told: bool = False

    @cached_property
    def config(self) -> Config:
        return load_config(self.environ, self.url)

    @cached_property
    def client(self) -> MaoClient:
        from .connect import connect

        return connect(self.config, on_stale=self.tell_age)

    @property
    def is_stale(self) -> bool:
        """Whether an answer came from copies, since the federation does not answer."""
        return self._age_told

    def tell_age(self, as_of: datetime, removed_from: str) -> None:
        """Says once that what is shown is what the node last knew of its federation."""
        if self._age_told:
            return
        self._age_told = True
        gone = f"this node was removed from {removed_from!r}"
        why = gone if removed_from else "the federation does not answer"
        say(f"{why}; this is as of {span(self.now - as_of)} ago")
        if removed_from:
            say("next: maoctl federation leave, then join with a new token")

    @property
    def now(self) -> datetime:
        return self.clock.now()

    def close(self) -> None:
        if "client" in self.__dict__:
            self.client.close()

    def show(self, view: TableView, records: Iterable[Model | Record], output: Format | None) -> None:
        how = output or self.output
        print_records(view, [_with_kind(view, plain_record(each), how) for each in records], how, self.now)
        self._tell_unreadable()

    def _tell_unreadable(self) -> None:
        """Says what lies among the records that were listed and cannot be read."""
        if "client" not in self.__dict__:
            return
        for each in self.client.http.take_unreadable():
            say(f"{each.get('name')} cannot be read: {each.get('unreadable')}")
            say(f"next: {each.get('next')}")

    def show_one(self, view: TableView, record: Model | Record, output: Format | None) -> None:
        how = output or self.output
        print_record(view, _with_kind(view, plain_record(record), how), how, self.now)

    def describe(self, view: TableView, record: Model | Record, output: Format | None) -> None:
        """Everything about one record: as name and value for people."""
        how = output or self.output
        if how.for_people:
            print_facts(facts_of(plain_record(record)))
        else:
            self.show_one(view, record, how)

    def done(self, view: TableView, record: Model | Record, what: str, output: Format | None) -> None:
        """A command has changed something: people are told on stderr, programs get the record."""
        say(f"{view.name(plain_record(record))} {what}")
        if not (output or self.output).for_people:
            self.show_one(view, record, output)

    def data(self, data: Any, output: Format | None, otherwise: Callable[[], None]) -> None:
        """JSON or YAML of `data` where that is asked for, else what `otherwise` prints."""
        how = output or self.output
        if how in (Format.JSON, Format.YAML):
            print_data(data, how)
        else:
            otherwise()


def _with_kind(view: TableView, record: Record, how: Format) -> Record:
    """What `maoctl apply` takes says in YAML what it is; JSON is what the node keeps, to the letter."""
    return {"kind": view.kind, **record} if view.kind in APPLIED and how is Format.YAML else record


def plain_record(record: Model | Record) -> Record:
    """A record as its JSON object."""
    return record if isinstance(record, dict) else record.model_dump(mode="json")


def session_of(context: typer.Context) -> CliSession:
    """The session that `main` put into the context."""
    session = context.find_object(CliSession)
    if session is None:
        raise RuntimeError("maoctl's commands are started through maoctl.main.run")
    return session


def example(*lines: str) -> str:
    """The end of a help text: command lines that are not wrapped."""
    return "\b\nExample:\n" + "\n".join(f"  {line}" for line in lines)


def confirm(question: str, yes: bool) -> None:
    """Asks on a terminal; elsewhere `--yes` is needed. Raises Stop when the answer is no."""
    import sys

    from .exits import CommandError, ExitCode

    if yes:
        return
    if not sys.stdin.isatty():
        raise CommandError(ExitCode.USAGE, f"{question} Nobody is there to answer.", "Say --yes.")
    if not typer.confirm(question, err=True):
        raise CommandError(ExitCode.FAILED, "Nothing was changed.")
