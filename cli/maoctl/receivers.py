"""Common commands on secrets, and on what alarms are sent to by which rules: get, show, remove, test."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import typer

from .exits import ExitCode
from .lookup import did_you_mean
from .output import TableView, say
from .session import CliSession, confirm

if TYPE_CHECKING:
    from mao_shared.models import Record
    from mao_shared.models.alarm import WebhookTest
    from mao_shared.models.notification import SendResult

R = TypeVar("R", bound="Record")


@dataclass(frozen=True, slots=True)
class Receivers(Generic[R]):
    """The records of one kind on the node of a session, and the calls of the API that read and remove them.

    An unknown name is answered with similar ones.
    """

    session: CliSession
    view: TableView[R]
    list_all: Callable[[], Iterable[R]]
    read: Callable[[str], R]
    delete: Callable[[str], object]

    def get(self, name: str | None) -> None:
        """Show one record, or all."""
        if name is None:
            self.session.show(self.view, self.list_all())
            return
        with self._similar(name):
            self.session.show_one(self.view, self.read(name))

    def show(self, name: str) -> None:
        """Show all fields of a record."""
        with self._similar(name):
            self.session.describe(self.view, self.read(name))

    def remove(self, name: str, yes: bool) -> None:
        """Remove a record, if that is confirmed."""
        confirm(f"Remove {self.view.kind} {name}?", yes)
        with self._similar(name):
            self.delete(name)
        say(f"{self.view.kind}/{name} removed")

    def test(self, name: str, send: Callable[[str], SendResult | WebhookTest]) -> None:
        """Send a test message. Raises typer.Exit (1) if it is not accepted."""
        with self._similar(name):
            result = send(name)
        if not result.delivered:
            say(f"{self.view.kind}/{name} did not accept the message: {result.error}")
            raise typer.Exit(ExitCode.FAILED)
        say(f"{self.view.kind}/{name} accepted the message")

    def _similar(self, name: str) -> AbstractContextManager[None]:
        return did_you_mean((name, lambda: (self.view.identify(known) for known in self.list_all())))
