"""`maoctl apply`: create or update the records in a file."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mao_shared.errors import NotFound
from maoctl import records
from maoctl.exits import CommandError, ExitCode
from maoctl.output import APPLIED, Format, say, write
from maoctl.session import CliSession, OutputOption, example, get_session
from maoctl.text import harmless_line
from maoctl.tree import App

if TYPE_CHECKING:
    from mao_shared.clients.gateway_http import Resource
    from mao_shared.models import Record


@dataclass(frozen=True)
class Wanted:
    """A record to create or update."""

    kind: str
    name: str
    record: Record


_NOT_APPLIED = ("kind", "status", "enrolled", "outdated", "pending", "enrolment")
"""`kind`, and the fields that `get -o yaml` adds to the record."""


def plan(documents: list[dict[str, Any]]) -> list[Wanted]:
    """Validate all records and return them in the order to write them. Raises CommandError, InvalidInput."""
    from mao_shared.models import Dataset, Pipeline, Tool
    from maoctl.documents import find_kind

    models: dict[str, type[Record]] = {"tool": Tool, "dataset": Dataset, "pipeline": Pipeline}
    wanted: dict[tuple[str, str], Wanted] = {}
    for document in documents:
        kind = find_kind(document, APPLIED)
        fields = {key: value for key, value in document.items() if key not in _NOT_APPLIED}
        record = records.build(models[kind], fields)
        name = str(getattr(record, "name", ""))
        if (kind, name) in wanted:
            raise CommandError(ExitCode.USAGE, f"{kind}/{name} appears twice.", "Remove one of them.")
        wanted[kind, name] = Wanted(kind, name, record)
    return sorted(wanted.values(), key=lambda item: APPLIED.index(item.kind))


def apply_one(session: CliSession, wanted: Wanted, dry_run: bool) -> str:
    """Create or update one record; return `created`, `updated` or `unchanged`.

    Raises Conflict or PreconditionFailed if the record changes between reading and writing.
    """
    client = session.client
    resources: dict[str, Resource[Any]] = {
        "tool": client.tools,
        "dataset": client.datasets,
        "pipeline": client.pipelines,
    }
    resource = resources[wanted.kind]
    try:
        found = resource.get(wanted.name)
    except NotFound:
        if not dry_run:
            resource.create(wanted.record)
        return "created"
    if found.record == wanted.record:
        return "unchanged"
    if not dry_run:
        resource.replace(wanted.name, wanted.record, found.revision)
    return "updated"


def apply(
    context: typer.Context,
    file: Annotated[str, typer.Option("--filename", "--file", "-f", help="YAML or JSON; - for stdin.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what would be done.")] = False,
    output: OutputOption = None,
) -> None:
    """Create or update the tools, datasets and pipelines in a file."""
    from maoctl.documents import read_records

    session = get_session(context, output)
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(
            ExitCode.USAGE, f"{file} cannot be read: {error}", "Name a file, or - for stdin."
        ) from error
    results: list[dict[str, str]] = []
    for item in plan(list(read_records(text))):
        result = apply_one(session, item, dry_run)
        results.append({"kind": item.kind, "name": item.name, "result": result})
        if session.output.for_people or session.output is Format.NAME:
            suffix = "" if session.output is Format.NAME else f" {result}{' (dry run)' if dry_run else ''}"
            write(f"{item.kind}/{harmless_line(item.name)}{suffix}\n")
    session.data(results, lambda: None)
    created = [done["name"] for done in results if (done["kind"], done["result"]) == ("pipeline", "created")]
    if created and not dry_run and session.output.for_people:
        say("next: " + "\n      ".join(f"maoctl pipeline enrol {name}" for name in created))


def add_to(app: App) -> None:
    """Add the command to the root."""
    app.command(epilog=example("maoctl apply -f federation.yaml --dry-run"))(apply)
