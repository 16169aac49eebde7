"""Common commands on registry records: get, show, update, remove; records built from options."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from mao_shared.errors import Conflict, InvalidInput, MaoError, PreconditionFailed, RecordUnreadable

from .lookup import did_you_mean, uncut
from .output import TableView, say
from .session import CliSession, confirm

if TYPE_CHECKING:
    from mao_shared.clients.gateway_http import Resource, Versioned
    from mao_shared.models import Record

MAX_ATTEMPTS = 5
R = TypeVar("R", bound="Record")


def given(**values: Any) -> dict[str, Any]:
    """Return the values that are not None, i.e. the options that were given."""
    return {key: value for key, value in values.items() if value is not None}


def build(model: type[R], fields: dict[str, Any]) -> R:
    """Return a record made of the fields. Raises InvalidInput that lists the invalid fields."""
    from pydantic import ValidationError

    from mao_shared.problems import field_errors

    try:
        return model.model_validate(fields)
    except ValidationError as error:
        wrong = field_errors(error.errors())
        words = re.sub("(?<=[a-z])(?=[A-Z])", " ", model.__name__).lower()
        raise InvalidInput(f"This {words} is invalid:", errors=wrong) from error


def fetch(resource: Resource[R], name: str) -> Versioned[R]:
    """Return a record with its revision. Raises NotFound that suggests similar names."""
    key = resource.model.key_field or "name"
    whole = uncut(name, lambda: (str(getattr(record, key)) for record in resource.list()))
    with did_you_mean((whole, resource)):
        return resource.get(whole)


def warn_of_secrets(owner: str, env: Mapping[str, str]) -> None:
    """Warn of variables that look like secrets: their values are kept and shown as they are."""
    from mao_shared.logs import looks_secret

    for name in sorted(name for name, value in env.items() if looks_secret(name, value)):
        kept = name.lower().replace("_", "-").strip("-")
        say(
            f"warning: {name} of {owner} looks like a secret, and everybody in the federation can read it; "
            f"keep it with 'maoctl secret set {kept}', and give it with '--secret {name}={kept}'"
        )


def get(session: CliSession, resource: Resource[R], view: TableView[R], name: str | None) -> None:
    """Show one record, or all."""
    if name is None:
        session.show(view, resource.list())
    else:
        session.show_one(view, fetch(resource, name).record)


def show(session: CliSession, resource: Resource[R], view: TableView[R], name: str) -> None:
    """Show all fields of a record."""
    session.describe(view, fetch(resource, name).record)


def remove(
    session: CliSession,
    resource: Resource[R],
    view: TableView[R],
    name: str,
    yes: bool,
    done: str = "removed",
) -> None:
    """Remove a record unless it was changed since it was fetched, or one that cannot be read."""
    try:
        found = fetch(resource, name)
    except MaoError as error:
        if error.code != RecordUnreadable.default_code:
            raise
        confirm(f"Remove {view.kind} {name}, which cannot be read?", yes)
        resource.delete(name)
        say(f"{name} {done}")
        return
    confirm(f"Remove {view.kind} {name}?", yes)
    resource.delete(name, found.revision)
    session.done(view, found.record, done)


def change(
    session: CliSession,
    resource: Resource[R],
    view: TableView[R],
    name: str,
    edit: Callable[[dict[str, Any]], dict[str, Any]],
) -> bool:
    """Edit a record; retries if it was changed meanwhile. Returns False if there was nothing to change."""
    from mao_shared.models.common import drop_unknown_fields

    for _ in range(MAX_ATTEMPTS):
        found = fetch(resource, name)
        wanted = build(type(found.record), edit(drop_unknown_fields(found.record).model_dump(mode="json")))
        if wanted == drop_unknown_fields(found.record):
            session.done(view, wanted, "unchanged")
            return False
        try:
            changed = resource.replace(name, wanted, found.revision)
        except PreconditionFailed:
            continue
        session.done(view, changed.record, "updated")
        return True
    raise Conflict(
        f"{view.kind} {name} was changed by others during {MAX_ATTEMPTS} attempts.", next="Try again."
    )
