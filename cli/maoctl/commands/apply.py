"""`maoctl apply`: many records from a file, created or updated."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from maoctl import records
from maoctl.exits import CommandError, ExitCode
from maoctl.output import Format, say, write
from maoctl.session import APPLIED, CliSession, OutputOption, example, session_of
from maoctl.text import harmless_line

if TYPE_CHECKING:
    from mao_shared.clients.gateway_http import Resource
    from mao_shared.models import Record

KINDS = APPLIED


@dataclass(frozen=True)
class Wanted:
    """A record that is to be as it is here."""

    kind: str
    name: str
    record: Record


def read_documents(text: str) -> Iterator[dict[str, Any]]:
    """The records in YAML or JSON: documents, lists of them, or `items`. Raises Stop for anything else."""
    from maoctl.documents import DocumentInvalid, read_all

    try:
        documents = read_all(text)
    except DocumentInvalid as error:
        raise CommandError(
            ExitCode.USAGE, f"The file cannot be read as YAML or JSON: {error}.", "Correct it there."
        ) from error
    for document in documents:
        yield from _flattened(document)


def _flattened(document: Any) -> Iterator[dict[str, Any]]:
    if document is None:
        return
    if isinstance(document, dict) and isinstance(document.get("items"), list):
        document = document["items"]
    for each in document if isinstance(document, list) else [document]:
        if not isinstance(each, dict):
            raise CommandError(ExitCode.USAGE, f"{each!r:.60} is no record.", _EXAMPLE)
        yield each


_EXAMPLE = "A record looks like: {kind: tool, name: crawler, author: A. Scientist, image: 'lab/crawler:1.4'}"


_NOT_WANTED = ("kind", "status", "enrolled", "outdated", "pending", "enrolment")
"""Beside `kind` what a `get -o yaml` found on the node, not what is to be."""


_TELLING = {"steps": "pipeline", "image": "tool", "master": "dataset", "body": "dataset"}


def _kind_by(document: dict[str, Any]) -> str:
    """The kind that the fields tell; the original's marketplace writes none."""
    return next((kind for field, kind in _TELLING.items() if field in document), "")


def plan(documents: list[dict[str, Any]]) -> list[Wanted]:
    """All records, checked, in the order in which they can be written. Raises Stop or InvalidInput."""
    from mao_shared.models import Dataset, Pipeline, Tool

    models: dict[str, type[Record]] = {"tool": Tool, "dataset": Dataset, "pipeline": Pipeline}
    wanted: dict[tuple[str, str], Wanted] = {}
    for document in documents:
        kind = str(document.get("kind", _kind_by(document))).lower()
        if kind not in models:
            raise CommandError(
                ExitCode.USAGE, f"kind is {document.get('kind')!r}; it can be {', '.join(KINDS)}.", _EXAMPLE
            )
        fields = {key: value for key, value in document.items() if key not in _NOT_WANTED}
        record = records.build(models[kind], fields)
        each = Wanted(kind, str(getattr(record, "name", "")), record)
        if (kind, each.name) in wanted:
            raise CommandError(ExitCode.USAGE, f"{kind}/{each.name} is there twice.", "Leave one of them.")
        wanted[kind, each.name] = each
    return sorted(wanted.values(), key=lambda each: KINDS.index(each.kind))


def apply_one(session: CliSession, wanted: Wanted, dry_run: bool) -> str:
    """Makes one record as it is wanted: `created`, `updated` or `unchanged`.

    Raises a Conflict when somebody else changes it between reading and writing.
    """
    from mao_shared.errors import NotFound

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
    session = session_of(context)
    wanted = plan(list(read_documents(_read(file))))
    how = output or session.output
    results = []
    for each in wanted:
        result = apply_one(session, each, dry_run)
        results.append({"kind": each.kind, "name": each.name, "result": result})
        if how.for_people or how is Format.NAME:
            words = "" if how is Format.NAME else f" {result}{' (dry run)' if dry_run else ''}"
            write(f"{each.kind}/{harmless_line(each.name)}{words}\n")
    session.data(results, output, lambda: None)
    made = [each["name"] for each in results if each["kind"] == "pipeline" and each["result"] == "created"]
    if made and not dry_run and how.for_people:
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
