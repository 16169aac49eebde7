"""`maoctl apply`: many records from a file, created or updated."""

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

if TYPE_CHECKING:
    from mao_shared.clients.gateway_http import Resource
    from mao_shared.models import Record


@dataclass(frozen=True)
class Wanted:
    """A record as it should be."""

    kind: str
    name: str
    record: Record


_NOT_APPLIED = ("kind", "status", "enrolled", "outdated", "pending", "enrolment")
"""Beside `kind` what `get -o yaml` found on the node, which is not part of the record."""


def plan(documents: list[dict[str, Any]]) -> list[Wanted]:
    """All records, checked, in an order in which they can be written. Raises CommandError, InvalidInput."""
    from mao_shared.models import Dataset, Pipeline, Tool
    from maoctl.documents import find_kind

    models: dict[str, type[Record]] = {"tool": Tool, "dataset": Dataset, "pipeline": Pipeline}
    wanted: dict[tuple[str, str], Wanted] = {}
    for document in documents:
        kind = find_kind(document, APPLIED)
        fields = {key: value for key, value in document.items() if key not in _NOT_APPLIED}
        record = records.build(models[kind], fields)
        each = Wanted(kind, str(getattr(record, "name", "")), record)
        if (kind, each.name) in wanted:
            raise CommandError(ExitCode.USAGE, f"{kind}/{each.name} appears twice.", "Remove one of them.")
        wanted[kind, each.name] = each
    return sorted(wanted.values(), key=lambda each: APPLIED.index(each.kind))


def apply_one(session: CliSession, wanted: Wanted, dry_run: bool) -> str:
    """Makes one record as it should be: `created`, `updated` or `unchanged`.

    Raises Conflict when somebody else changes it between reading and writing.
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
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be done.")] = False,
    output: OutputOption = None,
) -> None:
    """Create or update the tools, datasets and pipelines in a file."""
    from maoctl.documents import read_records

    session = get_session(context, output)
    wanted = plan(list(read_records(_read(file))))
    results = []
    for each in wanted:
        result = apply_one(session, each, dry_run)
        results.append({"kind": each.kind, "name": each.name, "result": result})
        if session.output.for_people or session.output is Format.NAME:
            words = "" if session.output is Format.NAME else f" {result}{' (dry run)' if dry_run else ''}"
            write(f"{each.kind}/{harmless_line(each.name)}{words}\n")
    session.data(results, lambda: None)
    made = [each["name"] for each in results if each["kind"] == "pipeline" and each["result"] == "created"]
    if made and not dry_run and session.output.for_people:
        say("next: " + "\n      ".join(f"maoctl pipeline enrol {name}" for name in made))


def _read(file: str) -> str:
    try:
        return sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(
            ExitCode.USAGE, f"{file} cannot be read: {error}", "Name a file, or - for stdin."
        ) from error


def add_to(app: typer.Typer) -> None:
    """Adds the command to the root."""
    app.command(epilog=example("maoctl apply -f federation.yaml --dry-run"))(apply)
