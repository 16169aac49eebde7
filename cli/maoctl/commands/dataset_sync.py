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
from maoctl.tree import App


def add_to(app: App) -> None:
    """Add the commands to `maoctl dataset`."""
    app.command(epilog=example("maoctl dataset push data"))(push)
    app.command(epilog=example("maoctl dataset acknowledge data"))(acknowledge)
    app.command(
        epilog=example("maoctl dataset resolve data --merge", "maoctl dataset resolve data --take-theirs")
    )(resolve)
    app.command(epilog=example("maoctl dataset alone data --yes"))(alone)
    app.command("set-aside", epilog=example("maoctl dataset set-aside data"))(set_aside)


def push(context: typer.Context, name: DatasetArgument, output: OutputOption = None) -> None:
    """Push unpushed commits to the dataset's remote now; exit code 1 if that fails."""
    session = get_session(context, output)
    with did_you_mean((name, session.client.datasets)):
        status = session.client.datasets.push(name)
    session.data(status, lambda: None)
    outbox = status.outbox
    if outbox.detail:
        detail = f"dataset/{name}: {outbox.waiting} unpushed ({outbox.state}): {outbox.detail}"
        raise CommandError(ExitCode.FAILED, detail, outbox.next)
    say(f"dataset/{name} is in sync with its remote")


def acknowledge(context: typer.Context, name: DatasetArgument, output: OutputOption = None) -> None:
    """Acknowledge a broken clone that was set aside, or a branch that was rewritten at the remote.

    They are no longer reported. The broken clone and the old commits of the branch are kept.
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
        bool, typer.Option("--merge", help="Keep both histories and this node's files.")
    ] = False,
    replay: Annotated[
        bool,
        typer.Option(
            "--replay",
            help="Put this node's unpushed commits, or those that the remote lost, on top of its branch.",
        ),
    ] = False,
    take_theirs: Annotated[
        bool,
        typer.Option(
            "--take-theirs", help="Use the remote's branch; keep this node's tip under another name."
        ),
    ] = False,
    output: OutputOption = None,
) -> None:
    """Reconcile this node's branch with the remote's after they have diverged."""
    options = {"merge": merge, "replay": replay, "take-theirs": take_theirs}
    chosen = [how for how, given in options.items() if given]
    if len(chosen) != 1:
        raise CommandError(ExitCode.USAGE, "Choose one: --merge, --replay or --take-theirs.")
    session = get_session(context, output)
    with did_you_mean((name, session.client.datasets)):
        done = session.client.datasets.resolve(name, chosen[0])

    def print_resolution() -> None:
        state = "pushed" if done.pushed else "not pushed yet"
        write(f"{done.branch} is at {short_commit(done.commit)}, {state}\n")
        for reference in done.rescued:
            say(f"Kept: {harmless(reference)}")
        if done.failure:
            say(harmless(done.failure))

    session.data(done, print_resolution)


def alone(
    context: typer.Context, name: DatasetArgument, yes: YesOption = False, output: OutputOption = None
) -> None:
    """Let this node alone decide a ground truth that was voted before, once no other node takes part."""
    session = get_session(context, output)
    with did_you_mean((name, session.client.datasets)):
        master = session.client.datasets.get(name).record.master
        say(f"This node's snapshots then become ground truth at {harmless(master)} at once.")
        say(f"If other nodes still vote there, use another remote: maoctl dataset update {name} --master URL")
        confirm(f"Let this node alone decide the ground truth of {name}?", yes)
        status = session.client.datasets.go_alone(name)
    session.data(status, lambda: say(f"dataset/{name}: this node alone now decides its ground truth"))


def set_aside(context: typer.Context, name: DatasetArgument, output: OutputOption = None) -> None:
    """Set aside this node's clone of a dataset that was removed or replaced; nothing is deleted."""
    session = get_session(context, output)
    done = session.client.datasets.set_aside(name)

    def print_path() -> None:
        write(f"{harmless(done.path)}\n")
        if done.unpushed:
            say(f"{done.unpushed} commits in it were never pushed to {harmless(done.remote)}")

    session.data(done, print_path)
