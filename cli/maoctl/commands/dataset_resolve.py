"""`maoctl dataset resolve`, `alone` and `set-aside`: what only a person can decide."""

from __future__ import annotations

from typing import Annotated

import typer

from maoctl.arguments import DatasetArgument
from maoctl.exits import CommandError, ExitCode
from maoctl.lookup import did_you_mean, names_of, segment
from maoctl.output import say, write
from maoctl.session import OutputOption, YesOption, confirm, example, session_of
from maoctl.text import harmless


def add_to(app: typer.Typer) -> None:
    """Adds the commands to `maoctl dataset`."""
    app.command(
        epilog=example("maoctl dataset resolve data --merge", "maoctl dataset resolve data --take-theirs")
    )(resolve)
    app.command(epilog=example("maoctl dataset alone data --yes"))(alone)
    app.command("set-aside", epilog=example("maoctl dataset set-aside data"))(set_aside)


def resolve(
    context: typer.Context,
    name: DatasetArgument,
    merge: Annotated[bool, typer.Option("--merge", help="Keep both histories; this node's files.")] = False,
    replay: Annotated[
        bool,
        typer.Option(
            "--replay", help="This node's unpushed commits, or all that it lost, on top of the remote's."
        ),
    ] = False,
    take_theirs: Annotated[
        bool, typer.Option("--take-theirs", help="The remote's; this node's tip is kept aside.")
    ] = False,
    output: OutputOption = None,
) -> None:
    """Decide where this node's branch and the remote's do not fit."""
    chosen = [how for how, on in _choices(merge, replay, take_theirs).items() if on]
    if len(chosen) != 1:
        raise CommandError(
            ExitCode.USAGE, "Say one way to resolve it.", "Give --merge, --replay or --take-theirs."
        )
    session = session_of(context)
    with did_you_mean((name, names_of(session.client.datasets))):
        done = session.client.resolve_dataset(segment(name), chosen[0])

    def for_people() -> None:
        state = "pushed" if done["pushed"] else "not pushed yet"
        write(f"{done['branch']} is at {done['commit'][:10]}, {state}\n")
        for reference in done["rescued"]:
            say(f"Kept: {harmless(reference)}")
        if done["failure"]:
            say(harmless(done["failure"]))

    session.data(done, output, for_people)


def alone(
    context: typer.Context, name: DatasetArgument, yes: YesOption = False, output: OutputOption = None
) -> None:
    """Let this node alone decide a ground truth that several have voted, once nobody else takes part."""
    session = session_of(context)
    with did_you_mean((name, names_of(session.client.datasets))):
        master = session.client.datasets.get(segment(name)).record.master
        say(f"What this node collects then becomes ground truth at {harmless(master)}, at once.")
        say("If others go on voting there, give it a remote of its own first: maoctl dataset update --master")
        confirm(f"Let this node alone decide the ground truth of {name}?", yes)
        status = session.client.go_alone(segment(name))
    session.data(status, output, lambda: say(f"dataset/{name}: this node alone decides its ground truth now"))


def set_aside(context: typer.Context, name: DatasetArgument, output: OutputOption = None) -> None:
    """Put away this node's clone of a dataset that was removed or is other data now; nothing is deleted."""
    session = session_of(context)
    done = session.client.set_aside_dataset(segment(name))

    def for_people() -> None:
        write(f"{harmless(done['path'])}\n")
        if done["unpushed"]:
            say(f"{done['unpushed']} commits there were never pushed to {harmless(done['remote'])}")

    session.data(done, output, for_people)


def _choices(merge: bool, replay: bool, take_theirs: bool) -> dict[str, bool]:
    return {"merge": merge, "replay": replay, "take-theirs": take_theirs}
