"""`maoctl vote schema`: what the fields of record files are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from maoctl.arguments import datasets, strip_kind
from maoctl.exits import CommandError, ExitCode
from maoctl.lookup import did_you_mean
from maoctl.output import Format, print_data, say
from maoctl.session import CliSession, OutputOption, example, get_session
from maoctl.text import harmless_line
from maoctl.tree import App
from maoctl.views import schemas

if TYPE_CHECKING:
    from mao_shared.models.schema import Schema


def add_to(app: App) -> None:
    """Add the command to `maoctl vote`."""
    app.command(
        epilog=example(
            "maoctl vote schema sensors results.csv",
            "maoctl vote schema sensors --pin > definition.yaml",
            "maoctl vote schema --repo . --branches a,b,c results.csv",
        )
    )(schema)


def schema(
    context: typer.Context,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[DATASET] [FILE]...",
            help="With --repo: [FILE]... only. Default: all record files.",
            show_default=False,
            autocompletion=datasets,
        ),
    ] = None,
    repo: Annotated[
        Path | None,
        typer.Option(help="Use a git repository on this machine instead of a dataset.", show_default=False),
    ] = None,
    branches: Annotated[
        str | None,
        typer.Option(
            help="With --repo: branches (or tags, commits) of the nodes, separated by commas, "
            "instead of a round.",
            show_default=False,
        ),
    ] = None,
    definition: Annotated[
        Path | None,
        typer.Option(
            "--definition", "-d", help="With --branches: vote definition (YAML or JSON).", show_default=False
        ),
    ] = None,
    round_id: Annotated[
        str | None, typer.Option("--round", help="Id of the round [default: the latest].", show_default=False)
    ] = None,
    truth: Annotated[str, typer.Option("--truth", help="With --repo: branch with the rounds.")] = (
        "ground-truth"
    ),
    pin: Annotated[
        bool, typer.Option("--pin", help="Print a vote definition that declares what was inferred.")
    ] = False,
    output: OutputOption = None,
) -> None:
    """Show the key of record files and the kind of each field, declared or inferred from all nodes' values.

    Warnings say where the inference is unsure. A definition printed with --pin is accepted by
    'maoctl dataset vote --definition' and 'maoctl vote run --definition'.
    """
    session = get_session(context, output)
    if repo is None and (branches or definition):
        raise CommandError(
            ExitCode.USAGE, "--branches and --definition need --repo.", "Name the repository: --repo PATH"
        )
    if definition is not None and branches is None:
        raise CommandError(
            ExitCode.USAGE, "A round has its own definition.", "Omit --definition, or give --branches."
        )
    if repo is None:
        found = _of_dataset(session, names or [], round_id)
    else:
        found = _of_repository(repo, names or [], branches, definition, round_id, truth)
    for doubt in schemas.doubts(found):
        say(f"warning: {harmless_line(doubt)}")
    if found.more:
        say(f"{found.more} more record files are not shown; name the files")
    if pin:
        how = Format.JSON if session.output is Format.JSON else Format.YAML
        print_data(found.pinned().model_dump(mode="json", exclude_defaults=True), how)
    else:
        session.data(found, lambda: session.show(schemas.FIELD, schemas.list_fields(found)))


def _of_dataset(session: CliSession, names: list[str], round_id: str | None) -> Schema:
    if not names:
        raise CommandError(
            ExitCode.USAGE,
            "Name a dataset, or a repository with --repo.",
            "Use: maoctl vote schema DATASET [FILE]..., or maoctl vote schema --repo PATH [FILE]...",
        )
    dataset, *files = names
    dataset = strip_kind("dataset")(dataset) or ""
    with did_you_mean((dataset, session.client.datasets)):
        return session.client.rounds.schema(dataset, strip_kind("round")(round_id), files)


def _of_repository(
    repo: Path,
    files: list[str],
    branches: str | None,
    definition: Path | None,
    round_id: str | None,
    truth: str,
) -> Schema:
    from mao_shared.models import VoteDefinition
    from maoctl.documents import read_definition
    from maoctl.voting import LocalRounds, describe_branches

    if branches is None:
        return LocalRounds(repo, truth).schema("", strip_kind("round")(round_id), files)
    rules = VoteDefinition() if definition is None else read_definition(definition)
    nodes = [name.strip() for name in branches.split(",") if name.strip()]
    return describe_branches(repo, nodes, rules, files)
