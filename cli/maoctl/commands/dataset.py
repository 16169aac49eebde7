"""`maoctl dataset`: register git repositories, show their status on this node, set their vote definition."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mao_shared import errors
from maoctl import records
from maoctl.arguments import AnyDataset, DatasetArgument
from maoctl.exits import CommandError, ExitCode
from maoctl.output import Format, flatten_facts, print_data, print_facts, say, to_document, write
from maoctl.progress import working
from maoctl.session import CliSession, OutputOption, YesOption, example, get_session
from maoctl.text import plain, size
from maoctl.tree import App
from maoctl.views import contents, registry

from . import dataset_contents, dataset_history, dataset_quarantine, dataset_sync

if TYPE_CHECKING:
    from mao_shared.models.dataset import DatasetStatus

app = App(help="Git repositories with a branch per node and ground-truth.")

DescriptionOption = Annotated[str | None, typer.Option(help="Description of the data.", show_default=False)]
LfsOption = Annotated[
    str | None,
    typer.Option("--lfs-above", help="Store larger files with Git LFS, e.g. 10m.", show_default=False),
]
ExternalOption = Annotated[
    list[str] | None,
    typer.Option(
        "--external", help="Key of 'maoctl write' to store here; may be repeated.", show_default=False
    ),
]
UncheckedOption = Annotated[
    bool, typer.Option("--unchecked", help="Do not check that the repository can be reached.")
]


@app.command(epilog=example("maoctl dataset add data git@git.example.org:mao/data.git"))
def add(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of the dataset.")],
    master: Annotated[str, typer.Argument(help="Remote: a git URL or an absolute path on the node.")],
    node: Annotated[
        list[str] | None,
        typer.Option("--node", help="Participating node; may be repeated.", show_default=False),
    ] = None,
    description: DescriptionOption = None,
    lfs_above: LfsOption = None,
    external: ExternalOption = None,
    unchecked: UncheckedOption = False,
    output: OutputOption = None,
) -> None:
    """Register an existing repository as a dataset."""
    session = get_session(context, output)
    if not unchecked:
        _check_remote(session, master)
    fields = records.given(nodes=node, description=description, lfs_above=lfs_above, external=external)
    _register(session, fields | {"name": name, "master": master})


@app.command(epilog=example("maoctl dataset init performance"))
def init(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of the repository and the dataset.")],
    description: DescriptionOption = None,
    lfs_above: LfsOption = None,
    external: ExternalOption = None,
    output: OutputOption = None,
) -> None:
    """Create an empty repository on the node and register it as a dataset."""
    session = get_session(context, output)
    with suppress(errors.NotFound):  # before creating a repository that nothing refers to
        session.client.datasets.get(name)
        raise errors.AlreadyExists(
            f"The dataset {name!r} already exists.",
            next=f"See 'maoctl dataset get {name}', or choose another name.",
        )
    made = session.client.datasets.init_bare_repository(name)
    fields = records.given(description=description, lfs_above=lfs_above, external=external)
    _register(session, fields | {"name": name, "master": made.master})


def _check_remote(session: CliSession, master: str) -> None:
    """Raise the node's error if it cannot use the repository as a remote."""
    try:
        session.client.datasets.check_remote(master)
    except (errors.Forbidden, errors.InvalidInput, errors.RemoteUnavailable) as error:
        if error.code != "dataset-url-refused" and error.next:
            error.next += " To register it anyway, use --unchecked."
        raise


def _register(session: CliSession, fields: dict[str, Any]) -> None:
    from mao_shared.models import Dataset

    dataset = records.build(Dataset, fields)
    made = session.client.datasets.create(dataset, idempotency_key=secrets.token_hex(16))
    session.done(registry.DATASET, made.record, "added")


@app.command("get", lists=True, epilog=example("maoctl dataset get", "maoctl dataset get data -o json"))
def get(context: typer.Context, name: AnyDataset = None, output: OutputOption = None) -> None:
    """Show one dataset, or all, with this node's unpushed commits and the reason."""
    session = get_session(context, output)
    if name is not None:
        dataset = _find(session, name)
        session.show_one(registry.NODE_DATASET, dataset)
        _report_broken(dataset.status)
        return
    statuses: dict[str, DatasetStatus] = {}
    try:
        statuses = {status.name: status for status in session.client.datasets.statuses()}
    except errors.Unavailable as error:  # the registry's list is shown all the same
        say(f"unpushed commits are not known: {error}")
    datasets = session.client.datasets.list()
    rows = [registry.NodeDataset(record, statuses.get(record.name)) for record in datasets]
    session.show(registry.NODE_DATASET, rows)
    for status in statuses.values():
        _report_broken(status)


def _find(session: CliSession, name: str) -> registry.NodeDataset:
    """Return a dataset with its status on this node, if that is known."""
    record = records.fetch(session.client.datasets, name).record
    try:
        return registry.NodeDataset(record, _status(session, name))
    except errors.Unavailable as error:
        say(f"unpushed commits are not known: {error}")
        return registry.NodeDataset(record, None, known=False)


def _status(session: CliSession, name: str) -> DatasetStatus | None:
    """Return the status on this node; None if no enrolled pipeline uses the dataset."""
    try:
        return session.client.datasets.status(name)
    except errors.NotFound:
        return None


def _report_broken(status: DatasetStatus | None) -> None:
    """Report broken clones on stderr."""
    for clone in status.broken_clones if status else []:
        say(f"{clone.detail}\nnext: {clone.next}")


@app.command(epilog=example("maoctl dataset show data"))
def show(context: typer.Context, name: DatasetArgument, output: OutputOption = None) -> None:
    """Show a dataset and its status on this node: branches, unpushed commits, size."""
    session = get_session(context, output)
    record = records.fetch(session.client.datasets, name).record
    dataset = registry.NodeDataset(record, _status(session, name))
    if not session.output.for_people:
        session.show_one(registry.NODE_DATASET, dataset)
        return
    facts = flatten_facts(to_document(record))
    if (status := dataset.status) is None:
        print_facts([*facts, ("status", "no clone on this node: no enrolled pipeline uses it")])
        return
    facts += [
        ("unpushed", str(status.outbox.waiting)),
        ("size", size(status.size)),
        ("unpushed since", plain(status.outbox.since)),
        ("reason", plain(status.failure)),
        ("next", plain(status.outbox.next)),
    ]
    print_facts(facts)
    if status.branches:
        write("\n")
        session.show(contents.BRANCH, status.branches)
    _report_broken(status)


@app.command("update", epilog=example("maoctl dataset update data --master git@git.example.org:new/data.git"))
@app.command("set", hidden=True)
def update(
    context: typer.Context,
    name: DatasetArgument,
    master: Annotated[str | None, typer.Option(help="New remote.", show_default=False)] = None,
    node: Annotated[
        list[str] | None,
        typer.Option(
            "--node", help="Participating node, replaces the list; may be repeated.", show_default=False
        ),
    ] = None,
    description: DescriptionOption = None,
    lfs_above: LfsOption = None,
    external: ExternalOption = None,
    unchecked: UncheckedOption = False,
    output: OutputOption = None,
) -> None:
    """Change the given fields of a dataset."""
    session = get_session(context, output)
    changes = records.given(
        master=master, nodes=node, description=description, lfs_above=lfs_above, external=external
    )
    if master is not None and not unchecked:
        _check_remote(session, master)
    if master is not None and _status(session, name) is not None:
        # The clone goes first: a remote with other data is refused, and the record is not changed then.
        from mao_shared.models import Dataset
        from mao_shared.models.common import drop_unknown_fields

        found = drop_unknown_fields(records.fetch(session.client.datasets, name).record)
        with working(f"Cloning {name}", session):
            session.client.datasets.ensure(records.build(Dataset, found.model_dump(mode="json") | changes))
        say(
            f"this node's clone of {name} uses the new remote; on other nodes: maoctl pipeline enrol PIPELINE"
        )
    records.change(session, session.client.datasets, registry.DATASET, name, lambda old: old | changes)


@app.command(epilog=example("maoctl dataset remove data --yes"))
def remove(context: typer.Context, name: DatasetArgument, yes: YesOption = False) -> None:
    """Remove a dataset from the registry; repositories are not deleted."""
    session = get_session(context)
    records.remove(session, session.client.datasets, registry.DATASET, name, yes)
    with suppress(errors.MaoError):  # without a clone there is no hint to give
        session.client.datasets.status(name)
        say(f"This node keeps its clone. To use the name for other data: maoctl dataset set-aside {name}")


@app.command(
    "vote", epilog=example("maoctl dataset vote data", "maoctl dataset vote data --definition vdx.yaml")
)
def vote(
    context: typer.Context,
    name: DatasetArgument,
    definition: Annotated[
        Path | None,
        typer.Option(help="File with a VDX definition (YAML or JSON).", exists=True, show_default=False),
    ] = None,
    defaults: Annotated[bool, typer.Option("--defaults", help="Reset to the defaults.")] = False,
    output: OutputOption = None,
) -> None:
    """Show or set the vote definition. A change takes effect on a node once its operator approves it."""
    session = get_session(context, output)
    if definition is None and not defaults:
        from mao_shared.models import VoteDefinition

        found = records.fetch(session.client.datasets, name).record.vote or VoteDefinition()
        shown = found.model_dump(mode="json", exclude_none=True)
        session.data(shown, lambda: print_data(shown, Format.YAML))
        return
    if definition is not None and defaults:
        raise CommandError(
            ExitCode.USAGE, "--definition and --defaults cannot be combined.", "Give one of them."
        )
    wanted = None
    if definition is not None:
        from maoctl.documents import read_definition

        wanted = read_definition(definition).model_dump(mode="json", exclude_none=True)
    records.change(
        session, session.client.datasets, registry.DATASET, name, lambda old: old | {"vote": wanted}
    )


@app.command("clone-url", epilog=example('git clone "$(maoctl dataset clone-url data)"'))
def clone_url(context: typer.Context, name: DatasetArgument) -> None:
    """Print the URL to clone a dataset from: the remote, or the node if only the node can read the remote."""
    from mao_shared.git_urls import local_path
    from maoctl.text import harmless_line

    session = get_session(context)
    master = records.fetch(session.client.datasets, name).record.master
    folder = local_path(master)
    hidden = folder is not None and not os.access(folder, os.R_OK | os.X_OK)
    write((f"{session.config.url}/git/{name}.git" if hidden else harmless_line(master)) + "\n")


dataset_contents.add_to(app)
dataset_history.add_to(app)
dataset_sync.add_to(app)
app.add_typer(dataset_quarantine.app, name="quarantine")
