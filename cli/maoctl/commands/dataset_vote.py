"""`maoctl dataset vote`: how a dataset's ground truth is voted."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from maoctl import records, views
from maoctl.arguments import DatasetArgument
from maoctl.exits import CommandError, ExitCode
from maoctl.output import Format, print_data, say
from maoctl.session import OutputOption, example, session_of

FORM = "A definition looks like: {quorum: UNTIL, quorum_percentage: 60, files: [{path: '*.csv', key: [id]}]}"


def add_to(app: typer.Typer) -> None:
    """Adds the command to `maoctl dataset`."""
    app.command(
        "vote",
        epilog=example("maoctl dataset vote data", "maoctl dataset vote data --definition vdx.yaml"),
    )(vote)


def vote(
    context: typer.Context,
    name: DatasetArgument,
    definition: Annotated[
        Path | None,
        typer.Option(help="File with a VDX definition, YAML or JSON.", exists=True, show_default=False),
    ] = None,
    defaults: Annotated[bool, typer.Option("--defaults", help="Go back to the defaults.")] = False,
    output: OutputOption = None,
) -> None:
    """Show how ground truth is voted, or set it; counts on a node once its operator approves."""
    session = session_of(context)
    if definition is None and not defaults:
        from mao_shared.models import VoteDefinition

        found = records.fetch(session.client.datasets, name).record.vote or VoteDefinition()
        shown = found.model_dump(mode="json", exclude_none=True)
        session.data(shown, output, lambda: print_data(shown, Format.YAML))
        return
    if definition is not None and defaults:
        raise CommandError(
            ExitCode.USAGE, "--definition and --defaults exclude each other.", "Give one of them."
        )
    wanted = None if definition is None else read_definition(definition)
    records.change(
        session, session.client.datasets, views.DATASET, name, lambda old: old | {"vote": wanted}, output
    )


def read_definition(path: Path) -> dict[str, Any]:
    """A vote definition from a file, checked; raises Stop, and InvalidInput that names wrong fields."""
    from mao_shared.models import VoteDefinition
    from maoctl.documents import DocumentInvalid, read_one

    try:
        document = read_one(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, DocumentInvalid) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise CommandError(ExitCode.USAGE, f"{path} cannot be read as YAML or JSON: {why}.", FORM) from error
    if not isinstance(document, dict):
        raise CommandError(ExitCode.USAGE, f"{path} holds no definition.", FORM)
    wanted = records.build(VoteDefinition, document)
    if wanted.exclusion == "FURTHEST" and wanted.exclusion_threshold < 1:
        say("warning: exclusion FURTHEST leaves out none with an exclusion_threshold below 1")
    return wanted.model_dump(mode="json", exclude_none=True)
