"""`maoctl dataset push|acknowledge|resolve|alone|set-aside`: this node's clone and its remote."""

from __future__ import annotations

from typing import Annotated

import typer

from maoctl.arguments import DatasetArgument
from maoctl.exits import CommandError, ExitCode
from maoctl.lookup import did_you_mean
from maoctl.output import say, write
from maoctl.session import OutputOption, YesOption, confirm, example, get_session
from maoctl.text import harmless, short_commit


def add_to(app: typer.Typer) -> None:
    """Adds the commands to `maoctl dataset`."""
    app.command(epilog=example("maoctl dataset push data"))(push)
    app.command(epilog=example("maoctl dataset acknowledge data"))(acknowledge)
    app.command(
        epilog=example("maoctl dataset resolve data --merge", "maoctl dataset resolve data --take-theirs")
    )(resolve)
    app.command(epilog=example("maoctl dataset alone data --yes"))(alone)
    app.command("set-aside", epilog=example("maoctl dataset set-aside data"))(set_aside)


def push(context: typer.Context, name: DatasetArgument, output: OutputOption = None) -> None:
    """Push what waits for the dataset's remote, now; exit code 1 when it fails."""
    session = get_session(context, output)
    with did_you_mean((name, session.client.datasets)):
        status = session.client.datasets.push(name)
    session.data(status, lambda: None)
    outbox = status.outbox
    if outbox.detail:
        detail = f"dataset/{name}: {outbox.waiting} waiting ({outbox.state}): {outbox.detail}"
        raise CommandError(ExitCode.FAILED, detail, outbox.next)
    say(f"dataset/{name} is in sync with its remote")


def acknowledge(context: typer.Context, name: DatasetArgument, output: OutputOption = None) -> None:
    """Acknowledge a broken clone that was set aside, or a branch that went back at the remote.

    The clone stays where it is, what the branch had is kept in the clone; neither is reported any more.
    """
    session = get_session(context, output)
    with did_you_mean((name, session.client.datasets)):
        status = session.client.datasets.acknowledge(name)
    session.data(status, lambda: None)
    say(f"dataset/{name}: acknowledged")


def resolve(
    context: typer.Context,
    name: DatasetArgument,
    merge: Annotated[
        bool, typer.Option("--merge", help="Keep both histories, and this node's files.")
    ] = False,
    replay: Annotated[
        bool,
        typer.Option(
            "--replay",
            help="Put this node's unpushed commits, or all that the remote lost, on top of the remote's.",
        ),
    ] = False,
    take_theirs: Annotated[
        bool,
        typer.Option(
            "--take-theirs", help="Take the remote's branch; this node's tip is kept under another name."
        ),
    ] = False,
    output: OutputOption = None,
) -> None:
    """Resolve a divergence of this node's branch and the remote's."""
    options = {"merge": merge, "replay": replay, "take-theirs": take_theirs}
    chosen = [how for how, given in options.items() if given]
    if len(chosen) != 1:
        raise CommandError(ExitCode.USAGE, "Choose one: --merge, --replay or --take-theirs.")
    session = get_session(context, output)
    with did_you_mean((name, session.client.datasets)):
        done = session.client.datasets.resolve(name, chosen[0])

    def for_people() -> None:
        state = "pushed" if done.pushed else "not pushed yet"
        write(f"{done.branch} is at {short_commit(done.commit)}, {state}\n")
        for reference in done.rescued:
            say(f"Kept: {harmless(reference)}")
        if done.failure:
            say(harmless(done.failure))

    session.data(done, for_people)


def alone(
    context: typer.Context, name: DatasetArgument, yes: YesOption = False, output: OutputOption = None
) -> None:
    """Let this node alone decide a ground truth that several have voted, once nobody else takes part."""
    session = get_session(context, output)
    with did_you_mean((name, session.client.datasets)):
        master = session.client.datasets.get(name).record.master
        say(f"What this node collects then becomes ground truth at {harmless(master)}, at once.")
        say("If others still vote there, give it a remote of its own first: maoctl dataset update --master")
        confirm(f"Let this node alone decide the ground truth of {name}?", yes)
        status = session.client.datasets.go_alone(name)
    session.data(status, lambda: say(f"dataset/{name}: this node alone decides its ground truth now"))


def set_aside(context: typer.Context, name: DatasetArgument, output: OutputOption = None) -> None:
    """Put away this node's clone of a dataset that was removed or is other data now; nothing is deleted."""
    session = get_session(context, output)
    done = session.client.datasets.set_aside(name)

    def for_people() -> None:
        write(f"{harmless(done.path)}\n")
        if done.unpushed:
            say(f"{done.unpushed} commits there were never pushed to {harmless(done.remote)}")

    session.data(done, for_people)
