"""What the nouns of the registry have in common: get, show, change, remove."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from mao_shared.errors import Conflict, InvalidInput, MaoError, PreconditionFailed, RecordUnreadable

from .lookup import did_you_mean, names_of
from .output import Format, TableView, say
from .session import CliSession, confirm

if TYPE_CHECKING:
    from mao_shared.clients.gateway_http import Resource, Versioned
    from mao_shared.models import Record

ATTEMPTS = 5
R = TypeVar("R", bound="Record")


def given(**values: Any) -> dict[str, Any]:
    """The values that were typed."""
    return {key: value for key, value in values.items() if value is not None}


def build(model: type[R], fields: dict[str, Any]) -> R:
    """A record; raises InvalidInput that lists the fields which do not validate."""
    from pydantic import ValidationError

    from mao_shared.problems import field_errors

    try:
        return model.model_validate(fields)
    except ValidationError as error:
        wrong = field_errors(error.errors())
        words = re.sub("(?<=[a-z])(?=[A-Z])", " ", model.__name__).lower()
        message = f"This {words} cannot be used:"
        raise InvalidInput(message, errors=wrong) from error


def fetch(resource: Resource[R], name: str, key: str = "name") -> Versioned[R]:
    """One record with its revision; NotFound names what nearly fits."""
    with did_you_mean((name, names_of(resource, key))):
        return resource.get(name)


def get(
    session: CliSession, resource: Resource[R], view: TableView, name: str | None, output: Format | None
) -> None:
    """Shows one record, or all."""
    if name is None:
        session.show(view, resource.list(), output)
    else:
        session.show_one(view, fetch(resource, name, view.key).record, output)


def show(
    session: CliSession, resource: Resource[R], view: TableView, name: str, output: Format | None
) -> None:
    """Shows everything about one record."""
    session.describe(view, fetch(resource, name, view.key).record, output)


def remove(
    session: CliSession, resource: Resource[R], view: TableView, name: str, yes: bool, done: str = "removed"
) -> None:
    """Removes a record as it was when the person was asked, or one that cannot be read."""
    try:
        found = fetch(resource, name, view.key)
    except MaoError as error:
        if error.code != RecordUnreadable.default_code:
            raise
        confirm(f"Remove {view.kind} {name}, which cannot be read?", yes)
        resource.delete(name)
        say(f"{name} {done}")
        return
    confirm(f"Remove {view.kind} {name}?", yes)
    resource.delete(name, found.revision)
    session.done(view, found.record, done, None)


def change(
    session: CliSession,
    resource: Resource[R],
    view: TableView,
    name: str,
    edit: Callable[[dict[str, Any]], dict[str, Any]],
    output: Format | None,
) -> bool:
    """Replaces a record by its edited self; edited anew when somebody else was quicker.

    False when there was nothing to change.
    """
    from mao_shared.models.common import drop_unknown_fields

    for _ in range(ATTEMPTS):
        found = fetch(resource, name, view.key)
        wanted = build(type(found.record), edit(drop_unknown_fields(found.record).model_dump(mode="json")))
        if wanted == drop_unknown_fields(found.record):
            session.done(view, wanted, "unchanged", output)
            return False
        try:
            changed = resource.replace(name, wanted, found.revision)
        except PreconditionFailed:
            continue
        session.done(view, changed.record, "updated", output)
        return True
    raise Conflict(f"{view.kind} {name} was changed by others {ATTEMPTS} times meanwhile.", next="Try again.")
