"""`maoctl apply`, `diff` and `schema`: records that files declare."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Annotated, Any

import typer

from maoctl.exits import CommandError, ExitCode
from maoctl.output import APPLIED, Format, print_data, say, write
from maoctl.session import CliSession, OutputOption, YesOption, confirm, example, get_session
from maoctl.text import harmless, harmless_line
from maoctl.tree import App

if TYPE_CHECKING:
    from maoctl.declared import Wanted
    from maoctl.output import Document

FilesOption = Annotated[
    list[str],
    typer.Option(
        "--filename",
        "--file",
        "-f",
        metavar="FILE|DIR",
        help="YAML or JSON; all files below a folder; - for stdin; may be repeated.",
    ),
]
SHARED = ("tool", "dataset", "pipeline")
"""Kinds of records that all nodes of a federation have in common."""
PruneOption = Annotated[
    bool,
    typer.Option(
        "--prune",
        help="Also remove what the files do not declare, of the kinds that they declare; asks before.",
    ),
]


def apply(
    context: typer.Context,
    file: FilesOption,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what would be done.")] = False,
    prune: PruneOption = False,
    yes: YesOption = False,
    output: OutputOption = None,
) -> None:
    """Create or update what files declare: tools, datasets, pipelines, enrolments, jobs, webhooks,
    channels, rules, heartbeats. A masked URL, as 'get' prints it, keeps the one that the node has."""
    from maoctl.declared import plan
    from maoctl.documents import read_paths

    session = get_session(context, output)
    wanted = plan(read_paths(file))
    surplus = _find_surplus(session, wanted) if prune else []
    if surplus and not dry_run:
        question = f"Remove {', '.join(f'{kind}/{name}' for kind, name in surplus)}?"
        if any(kind in SHARED for kind, _ in surplus):
            question = f"Tools, datasets and pipelines go for the whole federation. {question}"
        confirm(question, yes)
    results: list[dict[str, str]] = []

    def report(kind: str, name: str, result: str) -> None:
        results.append({"kind": kind, "name": name, "result": result})
        if session.output.for_people or session.output is Format.NAME:
            suffix = "" if session.output is Format.NAME else f" {result}{' (dry run)' if dry_run else ''}"
            write(f"{kind}/{harmless_line(name)}{suffix}\n")

    for item in wanted:
        report(item.kind, item.name, _apply_one(session, item, dry_run))
    for kind, name in surplus:
        _remove(session, kind, name, dry_run)
        report(kind, name, "removed")
    session.data(results, lambda: None)
    enrolled = {item.name for item in wanted if item.kind == "enrolment"}
    created = [done["name"] for done in results if (done["kind"], done["result"]) == ("pipeline", "created")]
    left = [name for name in created if name not in enrolled]
    changed = [done["name"] for done in results if (done["kind"], done["result"]) == ("pipeline", "updated")]
    steps = [f"maoctl pipeline enrol {name}" for name in left]
    steps += [f"maoctl pipeline approve {name}" for name in changed]
    if steps and not dry_run and session.output.for_people:
        say("next: " + "\n      ".join(steps))


def _apply_one(session: CliSession, wanted: Wanted, dry_run: bool) -> str:
    """Create or update one record; return `created`, `updated` or `unchanged`.

    Raises Conflict or PreconditionFailed if the record changes between reading and writing.
    """
    from maoctl.declared import KINDS

    declared = KINDS[wanted.kind]
    present = declared.find(session.client, wanted.name)
    wanted = wanted.settled(session.client, present)
    if present is None:
        if not dry_run:
            declared.create(session.client, wanted.record)
        return "created"
    if wanted.is_met_by(present):
        return "unchanged"
    if not dry_run:
        declared.update(session.client, wanted.record, present)
    return "updated"


def _find_surplus(session: CliSession, wanted: list[Wanted]) -> list[tuple[str, str]]:
    """Return what the node has of the declared kinds beyond what is declared, in the order to remove it."""
    from maoctl.declared import KINDS

    kept = {(item.kind, item.name) for item in wanted}
    kinds = [kind for kind in reversed(APPLIED) if any(item.kind == kind for item in wanted)]
    present = [(kind, name) for kind in kinds for name in sorted(KINDS[kind].names(session.client))]
    return [found for found in present if found not in kept]


def _remove(session: CliSession, kind: str, name: str, dry_run: bool) -> None:
    from maoctl.declared import KINDS

    if not dry_run:
        KINDS[kind].remove(session.client, name)


def diff(context: typer.Context, file: FilesOption, output: OutputOption = None) -> None:
    """Show what 'maoctl apply' would change; exit code 0 if nothing, 1 if something."""
    from maoctl.declared import KINDS, plan
    from maoctl.documents import read_paths

    session = get_session(context, output)
    changes: list[dict[str, Any]] = []
    for item in plan(read_paths(file)):
        present = KINDS[item.kind].find(session.client, item.name)
        item = item.settled(session.client, present)
        if present is not None and item.is_met_by(present):
            continue
        known = set(item.fields) if present is None else set(present.fields)
        after = {key: value for key, value in item.shown().items() if key in known}
        lines = _unified(f"{item.kind}/{item.name}", present.fields if present else None, after)
        result = "created" if present is None else "updated"
        changes.append({"kind": item.kind, "name": item.name, "result": result, "diff": "\n".join(lines)})
    if session.output is Format.NAME:
        write("".join(f"{change['kind']}/{harmless_line(change['name'])}\n" for change in changes))
    else:
        session.data(changes, lambda: write("".join(f"{harmless(change['diff'])}\n" for change in changes)))
    if changes:
        raise CommandError(ExitCode.FAILED)


def _unified(name: str, before: Document | None, after: Document) -> list[str]:
    """Return the unified diff of two documents as YAML; `before`: None if there is no such record."""
    import yaml

    def lines(document: Document | None) -> list[str]:
        return yaml.safe_dump(document, sort_keys=True, allow_unicode=True).splitlines() if document else []

    origin = f"node/{name}" if before else "/dev/null"
    return list(difflib.unified_diff(lines(before), lines(after), origin, f"file/{name}", lineterm=""))


def schema(
    context: typer.Context,
    kind: Annotated[
        str | None, typer.Argument(help=f"One of {', '.join(APPLIED)} [default: any].", show_default=False)
    ] = None,
    output: OutputOption = None,
) -> None:
    """Print the JSON Schema of the files of 'maoctl apply', for editors.

    In VS Code and other editors with a YAML language server, the first line of a file names it:
    '# yaml-language-server: $schema=mao.schema.json'
    """
    from maoctl.schemas import describe_files

    if kind is not None and kind not in APPLIED:
        raise CommandError(ExitCode.USAGE, f"Invalid kind {kind!r}.", f"Use one of {', '.join(APPLIED)}.")
    session = get_session(context, output)
    how = Format.YAML if session.output is Format.YAML else Format.JSON
    print_data(describe_files([kind] if kind else APPLIED), how)


def add_to(app: App) -> None:
    """Add the commands to the root."""
    app.command(
        epilog=example("maoctl apply -f federation.yaml --dry-run", "maoctl apply -f records/ --prune")
    )(apply)
    app.command(epilog=example("maoctl diff -f records/"))(diff)
    app.command(epilog=example("maoctl schema > mao.schema.json"))(schema)
