"""`maoctl dataset quarantine`: snapshots that failed a check; accept or discard them."""

from __future__ import annotations

import getpass
from typing import TYPE_CHECKING, Annotated

import typer

from maoctl.arguments import DatasetArgument
from maoctl.lookup import did_you_mean
from maoctl.output import print_facts, print_records, say, write
from maoctl.session import CliSession, OutputOption, YesOption, confirm, example, get_session
from maoctl.text import plain, short_commit
from maoctl.tree import App
from maoctl.views.checks import CHECK_RESULT, QUARANTINED

if TYPE_CHECKING:
    from mao_shared.models.check import QuarantinedSnapshot

app = App(help="Snapshots that failed a data check and wait for a decision.")

SnapshotArgument = Annotated[
    str, typer.Argument(help="Commit of the snapshot, 7 digits or more, or id of its run.")
]
NoteOption = Annotated[str, typer.Option(help="Note, kept with the decision in git.", show_default=False)]


@app.command(
    "list",
    lists=True,
    epilog=example(
        "maoctl dataset quarantine list data", "maoctl dataset quarantine list data --state waiting"
    ),
)
def list_quarantined(
    context: typer.Context,
    dataset: DatasetArgument,
    state: Annotated[
        str | None,
        typer.Option(help="Only those that are waiting | accepted | discarded", show_default=False),
    ] = None,
    output: OutputOption = None,
) -> None:
    """List this node's quarantined snapshots, newest first."""
    session = get_session(context, output)
    with did_you_mean((dataset, session.client.datasets)):
        session.show(QUARANTINED, session.client.datasets.quarantined(dataset, state))


@app.command(epilog=example("maoctl dataset quarantine show data c64a6e947f"))
def show(
    context: typer.Context, dataset: DatasetArgument, snapshot: SnapshotArgument, output: OutputOption = None
) -> None:
    """Show a quarantined snapshot, what its checks found, and how to look at it."""
    session = get_session(context, output)
    found = session.client.datasets.quarantined_snapshot(dataset, snapshot)
    if not session.output.for_people:
        session.show_one(QUARANTINED, found)
        return
    _describe(session, found)


def _describe(session: CliSession, found: QuarantinedSnapshot) -> None:
    facts = {
        "snapshot": found.commit,
        "run": found.run,
        "step": found.step,
        "tick": found.scheduled_for,
        "quarantined": found.quarantined_at,
        "state": found.state,
        "decided": found.decided_at,
        "by": found.by,
        "note": found.note,
        "accepted as": found.accepted_as,
        "branch": found.branch,
        "pushed": found.pushed,
    }
    print_facts([(name, plain(value)) for name, value in facts.items()])
    if found.checks:
        write("\n")
        print_records(CHECK_RESULT, found.checks, session.output, session.now)
    if found.state == "waiting":
        where = f"{found.dataset} {short_commit(found.commit)}"
        before = short_commit(found.base) if found.base else found.node
        say(f"What it changes: maoctl dataset diff {found.dataset} {before} {short_commit(found.commit)}")
        say(f"Publish it: maoctl dataset quarantine accept {where}")
        say(f"Discard it: maoctl dataset quarantine discard {where}")


@app.command(epilog=example("maoctl dataset quarantine accept data c64a6e947f --note 'a holiday'"))
def accept(
    context: typer.Context,
    dataset: DatasetArgument,
    snapshot: SnapshotArgument,
    note: NoteOption = "",
    output: OutputOption = None,
) -> None:
    """Publish a snapshot on top of this node's branch; it then votes like any other."""
    session = get_session(context, output)
    done = session.client.datasets.accept_quarantined(dataset, snapshot, by=_user(), note=note)
    _report(session, done)


@app.command(epilog=example("maoctl dataset quarantine discard data c64a6e947f --yes"))
def discard(
    context: typer.Context,
    dataset: DatasetArgument,
    snapshot: SnapshotArgument,
    note: NoteOption = "",
    yes: YesOption = False,
    output: OutputOption = None,
) -> None:
    """Discard a snapshot for good; its commit stays in the history of the quarantine branch."""
    session = get_session(context, output)
    confirm(f"Discard the snapshot {snapshot} of {dataset}?", yes)
    done = session.client.datasets.discard_quarantined(dataset, snapshot, by=_user(), note=note)
    _report(session, done)


def _report(session: CliSession, done: QuarantinedSnapshot) -> None:
    pushed = "" if done.pushed else "; not pushed yet"
    where = f" as {short_commit(done.accepted_as)}" if done.accepted_as else ""
    session.done(QUARANTINED, done, f"{done.state}{where}{pushed}")


def _user() -> str:
    """Return the name of the user, or nothing where it is not known."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""
