"""`maoctl dataset`: register git repositories, read what is in them."""

from __future__ import annotations

import os
import secrets
from itertools import islice
from typing import Annotated, Any

import typer

from maoctl import records, views
from maoctl.arguments import AnyDataset, DatasetArgument
from maoctl.lookup import did_you_mean, names_of, segment
from maoctl.output import Format, facts_of, print_facts, say, write
from maoctl.session import CliSession, OutputOption, YesOption, example, session_of
from maoctl.text import plain, size

from . import dataset_look, dataset_push, dataset_resolve, dataset_vote

app = typer.Typer(
    help="Git repositories with a branch a node and ground-truth.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

DescriptionOption = Annotated[str | None, typer.Option(help="What is in it.", show_default=False)]
LfsOption = Annotated[
    str | None, typer.Option("--lfs-above", help="Larger files go to Git LFS, like 10m.", show_default=False)
]
ExternalOption = Annotated[
    list[str] | None,
    typer.Option(
        "--external", help="Key of 'maoctl write' that goes here; may be repeated.", show_default=False
    ),
]
UncheckedOption = Annotated[bool, typer.Option("--unchecked", help="Also if the repository is not there.")]
RefOption = Annotated[str, typer.Option(help="Branch or commit.")]


@app.command(epilog=example("maoctl dataset add data git@git.example.org:mao/data.git"))
def add(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name to register it by.")],
    master: Annotated[str, typer.Argument(help="The remote: a git URL or an absolute path on the node.")],
    node: Annotated[
        list[str] | None, typer.Option("--node", help="Takes part; may be repeated.", show_default=False)
    ] = None,
    description: DescriptionOption = None,
    lfs_above: LfsOption = None,
    external: ExternalOption = None,
    unchecked: UncheckedOption = False,
    output: OutputOption = None,
) -> None:
    """Register a dataset that has a remote."""
    session = session_of(context)
    if not unchecked:
        _check_remote(session, master)
    fields = records.given(nodes=node, description=description, lfs_above=lfs_above, external=external)
    _register(session, fields | {"name": name, "master": master}, output)


@app.command(epilog=example("maoctl dataset init performance"))
def init(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of repository and dataset.")],
    description: DescriptionOption = None,
    lfs_above: LfsOption = None,
    external: ExternalOption = None,
    output: OutputOption = None,
) -> None:
    """Make an empty repository on the node and register it."""
    session = session_of(context)
    _check_free(session, name)
    made = session.client.init_bare_repo(name)
    fields = records.given(description=description, lfs_above=lfs_above, external=external)
    _register(session, fields | {"name": name, "master": made["master"]}, output)


def _check_free(session: CliSession, name: str) -> None:
    """Raises AlreadyExists before a repository is made that nothing would refer to."""
    from mao_shared.errors import AlreadyExists, NotFound

    try:
        session.client.datasets.get(segment(name))
    except NotFound:
        return
    raise AlreadyExists(
        f"There is a dataset {name!r} already.",
        next=f"Look at it with 'maoctl dataset get {name}', or choose another name.",
    )


def _check_remote(session: CliSession, master: str) -> None:
    """Raises what the node says when there is no repository that it can reach."""
    from mao_shared.errors import Forbidden, InvalidInput, RemoteUnavailable

    try:
        session.client.check_remote(master)
    except (Forbidden, InvalidInput, RemoteUnavailable) as error:
        if error.code != "dataset-url-refused" and error.next:
            error.next += " To register it all the same: --unchecked."
        raise


def _register(session: CliSession, fields: dict[str, Any], output: OutputOption) -> None:
    from mao_shared.models import Dataset

    dataset = records.build(Dataset, fields)
    made = session.client.datasets.create(dataset, idempotency_key=secrets.token_hex(16))
    session.done(views.DATASET, made.record, "added", output)


@app.command("get", epilog=example("maoctl dataset get", "maoctl dataset get data -o json"))
@app.command("list", hidden=True)
def get(context: typer.Context, name: AnyDataset = None, output: OutputOption = None) -> None:
    """Show one dataset, or all, with what waits to be pushed from this node, and why."""
    dataset_push.get(session_of(context), name, output)


@app.command(epilog=example("maoctl dataset show data"))
def show(context: typer.Context, name: DatasetArgument, output: OutputOption = None) -> None:
    """Show a dataset and its state on this node: branches, waiting pushes, size."""
    session = session_of(context)
    _describe(session, dataset_push.with_status(session, name), output)


def _describe(session: CliSession, dataset: dict[str, Any], output: Format | None) -> None:
    """Facts and, for people, a table of the branches; the whole document for programs."""
    status = dataset["status"] or {}
    if not (output or session.output).for_people:
        session.show_one(views.DATASET, dataset, output)
        return
    facts = dict(dataset, status="" if status else "not cloned to this node: no enrolment here uses it")
    print_facts(
        [
            *facts_of(facts),
            ("to be pushed", plain((status.get("outbox") or {}).get("waiting"))),
            ("size", size(status.get("size"))),
            ("waiting since", plain((status.get("outbox") or {}).get("since"))),
            ("push waits", plain(status.get("failure"))),
            ("what to do", plain((status.get("outbox") or {}).get("next"))),
        ]
    )
    if status.get("branches"):
        write("\n")
        session.show(views.BRANCH, status["branches"], output)
    dataset_push.tell_broken(status)


@app.command("update", epilog=example("maoctl dataset update data --master git@git.example.org:new/data.git"))
@app.command("set", hidden=True)
def update(
    context: typer.Context,
    name: DatasetArgument,
    master: Annotated[str | None, typer.Option(help="The remote.", show_default=False)] = None,
    node: Annotated[
        list[str] | None, typer.Option("--node", help="All that take part.", show_default=False)
    ] = None,
    description: DescriptionOption = None,
    lfs_above: LfsOption = None,
    external: ExternalOption = None,
    unchecked: UncheckedOption = False,
    output: OutputOption = None,
) -> None:
    """Change what is named of a dataset; the rest stays."""
    session = session_of(context)
    changes = records.given(
        master=master, nodes=node, description=description, lfs_above=lfs_above, external=external
    )
    if master is not None and not unchecked:
        _check_remote(session, master)
    if master is not None:
        _follow(session, name, changes)
    records.change(session, session.client.datasets, views.DATASET, name, lambda old: old | changes, output)


def _follow(session: CliSession, name: str, changes: dict[str, Any]) -> None:
    """The clone of this node goes over to the new remote, if there is one: before the record says so, since
    other data is refused."""
    from mao_shared.errors import NotFound
    from mao_shared.models import Dataset

    found = records.fetch(session.client.datasets, name).record.model_dump(mode="json")
    try:
        session.client.dataset_status(segment(name))
    except NotFound:
        return
    session.client.ensure_dataset(records.build(Dataset, found | changes))
    say(f"this node's clone of {name} follows; other nodes do with: maoctl pipeline enrol PIPELINE")


@app.command(epilog=example("maoctl dataset remove data --yes"))
def remove(context: typer.Context, name: DatasetArgument, yes: YesOption = False) -> None:
    """Remove a dataset's record; repositories stay where they are."""
    session = session_of(context)
    records.remove(session, session.client.datasets, views.DATASET, name, yes)
    _tell_left_over(session, name)


def _tell_left_over(session: CliSession, name: str) -> None:
    """Says that this node still has a clone, which keeps the name to its data."""
    from mao_shared.errors import MaoError

    try:
        session.client.dataset_status(segment(name))
    except MaoError:  # there is none, or the node does not say: the hint is a courtesy
        return
    say(f"This node keeps its clone. To free the name for other data: maoctl dataset set-aside {name}")


@app.command(epilog=example("maoctl dataset log data --branch node-1"))
def log(
    context: typer.Context,
    name: DatasetArgument,
    branch: Annotated[str | None, typer.Option(help="Else this node's.", show_default=False)] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="At most so many.")] = 20,
    output: OutputOption = None,
) -> None:
    """Show the commits of a branch, newest first."""
    session = session_of(context)
    with did_you_mean((name, names_of(session.client.datasets))):
        session.show(views.COMMIT, list(islice(session.client.history(segment(name), branch), limit)), output)


@app.command(epilog=example("maoctl dataset files data --ref ground-truth"))
def files(
    context: typer.Context,
    name: DatasetArgument,
    ref: RefOption = "ground-truth",
    path: Annotated[str | None, typer.Option(help="Folder to list.", show_default=False)] = None,
    output: OutputOption = None,
) -> None:
    """List the files of a dataset."""
    session = session_of(context)
    with did_you_mean((name, names_of(session.client.datasets))):
        session.show(views.FILE, list(session.client.files(segment(name), ref=ref, path=path)), output)


@app.command(epilog=example("maoctl dataset cat data results.csv --ref node-1"))
def cat(
    context: typer.Context,
    name: DatasetArgument,
    path: Annotated[str, typer.Argument(help="File in the dataset.")],
    ref: RefOption = "ground-truth",
    raw: Annotated[
        bool, typer.Option("--raw", help="Control characters as they are, on a terminal too.")
    ] = False,
) -> None:
    """Write a file of a dataset to stdout."""
    from maoctl.logs import TextWriter

    session = session_of(context)
    writer = TextWriter(raw)
    with did_you_mean((name, names_of(session.client.datasets))):
        session.client.download(segment(name), path, writer, ref=ref)
    writer.end()


@app.command("clone-url", epilog=example('git clone "$(maoctl dataset clone-url data)"'))
def clone_url(context: typer.Context, name: DatasetArgument) -> None:
    """Print the address to clone a dataset from: the remote, or the node where only that sees the remote."""
    from mao_shared.git_urls import local_path
    from maoctl.text import harmless_line

    session = session_of(context)
    master = records.fetch(session.client.datasets, name).record.master
    folder = local_path(master)
    hidden = folder is not None and not os.access(folder, os.R_OK | os.X_OK)
    write((f"{session.config.url}/git/{segment(name)}.git" if hidden else harmless_line(master)) + "\n")


dataset_look.add_to(app)
dataset_push.add_to(app)
dataset_resolve.add_to(app)
dataset_vote.add_to(app)
