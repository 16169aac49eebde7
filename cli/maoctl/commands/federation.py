"""`maoctl federation`: several nodes that share a registry, and who of them runs its etcd."""

from __future__ import annotations

import sys
from datetime import timedelta
from typing import Annotated

import typer

from mao_shared.errors import InvalidInput, MaoError
from maoctl.exits import CommandError, ExitCode
from maoctl.output import flatten_facts, print_facts, say, to_document, write
from maoctl.session import CliSession, OutputOption, YesOption, confirm, example, get_session
from maoctl.views.federation import FEDERATION, MEMBER

app = typer.Typer(help="Several nodes that share one registry.", no_args_is_help=True, rich_markup_mode=None)

AllowUnsafeOption = Annotated[
    bool,
    typer.Option(
        "--allow-unsafe-etcd-that-ignores-key-rights",
        help="Even on an etcd that lets every member read and write all keys (CVE-2026-33343).",
    ),
]
NodeOption = Annotated[str, typer.Argument(help="Name of the node.", metavar="NODE")]


@app.command(epilog=example("maoctl federation create lab"))
def create(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of the federation.")],
    allow_unsafe: AllowUnsafeOption = False,
    output: OutputOption = None,
) -> None:
    """Create a federation on this node, with all that is registered here."""
    session = get_session(context, output)
    made = session.client.federation.create(name, allow_unsafe=allow_unsafe)
    session.done(FEDERATION, made, "created")
    _say_warnings(made.warnings)
    say("invite others with: maoctl federation invite NODE")


@app.command(epilog=example("maoctl federation invite node-2 > token"))
def invite(
    context: typer.Context,
    node: NodeOption,
    valid: Annotated[
        str | None, typer.Option(help="How long it is valid, like 2h or 7d; else a day.", show_default=False)
    ] = None,
    output: OutputOption = None,
) -> None:
    """Print a token with which one node may join, once. It is a secret. On core nodes only."""
    session = get_session(context, output)
    made = session.client.federation.invite(node, _seconds(valid))
    soon = made.expires_at - session.now < timedelta(hours=1)
    until = f"{made.expires_at:%Y-%m-%d %H:%M:%S}" if soon else f"{made.expires_at:%Y-%m-%d %H:%M}"
    say(f"invitation of {node} to {made.federation}, valid until {until} UTC;")
    say(f"authority {made.fingerprint}; on {node}: maoctl federation join TOKEN")
    session.data(made, lambda: write(made.token + "\n"))


def _seconds(text: str | None) -> float | None:
    """Raises CommandError for an invalid duration."""
    from mao_shared.models import InvitationRequest
    from maoctl import records

    if text is None:
        return None
    try:
        return records.build(InvitationRequest, {"node": "any", "valid": text}).valid
    except InvalidInput as error:
        limits = "an invitation is valid for one minute to 30 days"
        hint = "Use a duration like 90s, 2h or 7d."
        raise CommandError(ExitCode.USAGE, f"Invalid duration --valid {text}: {limits}.", hint) from error


@app.command(epilog=example("maoctl federation join mao1.eNp…", "maoctl federation join - < token"))
def join(
    context: typer.Context,
    token: Annotated[str, typer.Argument(help="What 'invite' printed; - reads it from stdin.")],
    allow_unsafe: AllowUnsafeOption = False,
    output: OutputOption = None,
) -> None:
    """Join a federation; this node's records become the federation's. Name clashes are listed first."""
    session = get_session(context, output)
    text = (sys.stdin.read() if token == "-" else token).strip()  # noqa: S105
    joined = session.client.federation.join(text, allow_unsafe=allow_unsafe)
    session.done(FEDERATION, joined, "joined")
    _say_warnings(joined.warnings)
    if joined.published:
        say(f"published to all nodes of {joined.name}: {', '.join(joined.published)}")


@app.command("list", epilog=example("maoctl federation list -o wide"))
@app.command("get", hidden=True)
def list_(context: typer.Context, output: OutputOption = None) -> None:
    """List the federation's nodes: who is present, who runs its etcd and whether that answers."""
    session = get_session(context, output)
    session.show(MEMBER, session.client.federation.members())


@app.command(epilog=example("maoctl federation show"))
def show(context: typer.Context, output: OutputOption = None) -> None:
    """Show the federation that this node is in."""
    session = get_session(context, output)
    state = session.client.federation.get()
    session.data(state, lambda: print_facts(flatten_facts(to_document(state))))


@app.command(epilog=example("maoctl federation leave --yes"))
def leave(
    context: typer.Context,
    force: Annotated[bool, typer.Option("--force", help="Even if the federation does not answer.")] = False,
    yes: YesOption = False,
) -> None:
    """Leave the federation; this node continues alone with the records as they are now."""
    session = get_session(context)
    node = session.client.status().node
    say("The node is then on its own; it moves voted ground truth only after: maoctl dataset alone NAME")
    _report_shared_work(session, node)
    confirm("Leave the federation?", yes)
    left = session.client.federation.leave(force=force)
    say(f"federation/{left.federation} left" if left.federation else "The unfinished membership is dropped.")
    if not left.known:
        say("The federation's records were not known here: this node has those from before it joined.")
    if not left.struck:
        say(f"No other node was informed; if any are left, run on a core: maoctl federation remove {node}")


def _report_shared_work(session: CliSession, node: str) -> None:
    """Names the datasets that others write to as well, and the jobs that write there. Silent where these are
    not known: leaving must not fail because of that.
    """
    try:
        written = {each.pipeline: each.outputs for each in session.client.enrolments.list()}
        ours = set[str]().union(*written.values())
        shared = [each for each in session.client.datasets.list() if each.name in ours]
        shared = [each for each in shared if set(each.nodes) - {node}]
        jobs = [each for each in session.client.jobs.list() if not each.paused]
    except MaoError:
        return
    names = {each.name for each in shared}
    if names:
        say(f"Others vote on and push to the remotes of {', '.join(sorted(names))} as well.")
    going_on = [each.id for each in jobs if written.get(each.pipeline, set()) & names]
    if going_on:
        say("These jobs continue there; to pause them first:")
    for job in going_on:
        say(f"  maoctl job pause {job}")


@app.command(epilog=example("maoctl federation remove node-9 --yes"))
def remove(context: typer.Context, node: NodeOption, yes: YesOption = False) -> None:
    """Remove a node from the federation for good; its access ends at once. On core nodes only."""
    session = get_session(context)
    confirm(f"Remove node {node} from the federation?", yes)
    session.client.federation.remove(node)
    say(f"node/{node} removed")


@app.command(epilog=example("maoctl federation promote node-2"))
def promote(context: typer.Context, node: NodeOption, allow_unsafe: AllowUnsafeOption = False) -> None:
    """Promote a node: it runs a voting member of the federation's etcd. On core nodes only."""
    session = get_session(context)
    seat = session.client.federation.promote(node, allow_unsafe=allow_unsafe)
    say(f"node/{node} promoted; its etcd is at {seat.client}")
    state = session.client.federation.get()
    _say_warnings(state.warnings)
    if state.advice:
        say(state.advice)


def _say_warnings(warnings: list[str]) -> None:
    for warning in warnings:
        say(f"warning: {warning}")


@app.command(epilog=example("maoctl federation demote node-2"))
def demote(context: typer.Context, node: NodeOption) -> None:
    """Demote a core node to a client. On core nodes only."""
    session = get_session(context)
    was_core = session.client.federation.demote(node).was_core
    say(f"node/{node} demoted" if was_core else f"node/{node} is not a core node; nothing was changed")
