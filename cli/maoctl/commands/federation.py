"""`maoctl federation`: several nodes that share a registry, and who of them runs its etcd."""

from __future__ import annotations

import sys
from datetime import timedelta
from typing import Annotated, Any

import typer

from mao_shared.errors import InvalidInput
from maoctl import views_federation
from maoctl.exits import CommandError, ExitCode
from maoctl.output import facts_of, print_facts, say, write
from maoctl.session import CliSession, OutputOption, YesOption, confirm, example, plain_record, session_of

app = typer.Typer(help="Several nodes that share one registry.", no_args_is_help=True, rich_markup_mode=None)

AllowUnsafeOption = Annotated[
    bool,
    typer.Option(
        "--allow-unsafe-etcd-that-ignores-key-rights",
        help="Also on an etcd that lets every member read and write all keys (CVE-2026-33343).",
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
    session = session_of(context)
    made = session.client.create_federation(name, allow_unsafe=allow_unsafe)
    session.done(views_federation.FEDERATION, made, "created", output)
    _warn(made.warnings)
    say("invite others with: maoctl federation invite NODE")


@app.command(epilog=example("maoctl federation invite node-2 > token"))
def invite(
    context: typer.Context,
    node: NodeOption,
    valid: Annotated[
        str | None, typer.Option(help="How long, like 2h or 7d; else a day.", show_default=False)
    ] = None,
    output: OutputOption = None,
) -> None:
    """Print a token with which one node may join, once. It is a secret. On core nodes only."""
    session = session_of(context)
    made = session.client.invite_node(node, _seconds(valid))
    soon = made.expires_at - session.now < timedelta(hours=1)
    until = f"{made.expires_at:%Y-%m-%d %H:%M:%S}" if soon else f"{made.expires_at:%Y-%m-%d %H:%M}"
    say(f"invitation of {node} to {made.federation}, good until {until} UTC;")
    say(f"authority {made.fingerprint}; on {node}: maoctl federation join TOKEN")
    session.data(plain_record(made), output, lambda: write(made.token + "\n"))


def _seconds(text: str | None) -> float | None:
    """Raises Stop for what is no duration."""
    from mao_shared.models import InvitationRequest
    from maoctl import records

    if text is None:
        return None
    try:
        return records.build(InvitationRequest, {"node": "any", "valid": text}).valid
    except InvalidInput as error:
        why = "an invitation is good for a minute at least and 30 days at most"
        hint = "Give a duration like 90s, 2h or 7d."
        raise CommandError(ExitCode.USAGE, f"--valid {text} cannot be used: {why}.", hint) from error


@app.command(epilog=example("maoctl federation join mao1.eNp…", "maoctl federation join - < token"))
def join(
    context: typer.Context,
    token: Annotated[str, typer.Argument(help="What 'invite' printed; - reads it from stdin.")],
    allow_unsafe: AllowUnsafeOption = False,
    output: OutputOption = None,
) -> None:
    """Join a federation; this node's records become the federation's, clashes are listed before."""
    session = session_of(context)
    text = (sys.stdin.read() if token == "-" else token).strip()  # noqa: S105
    joined = session.client.join_federation(text, allow_unsafe=allow_unsafe)
    session.done(views_federation.FEDERATION, joined, "joined", output)
    _warn(joined.warnings)
    if joined.published:
        say(f"published to all nodes of {joined.name}: {', '.join(joined.published)}")


@app.command("list", epilog=example("maoctl federation list -o wide"))
@app.command("get", hidden=True)
def list_(context: typer.Context, output: OutputOption = None) -> None:
    """List the federation's nodes: who is present, who runs its etcd and whether that answers."""
    session = session_of(context)
    session.show(views_federation.FEDERATION_NODE, session.client.federation_nodes(), output)


@app.command(epilog=example("maoctl federation show"))
def show(context: typer.Context, output: OutputOption = None) -> None:
    """Show the federation that this node is in."""
    session = session_of(context)
    state: dict[str, Any] = plain_record(session.client.federation())
    session.data(state, output, lambda: print_facts(facts_of(state)))


@app.command(epilog=example("maoctl federation leave --yes"))
def leave(
    context: typer.Context,
    force: Annotated[bool, typer.Option("--force", help="Also when the federation does not answer.")] = False,
    yes: YesOption = False,
) -> None:
    """Leave the federation; this node goes on alone with the records as they are now."""
    session = session_of(context)
    node = str(session.client.status()["node"])
    say("The node then stands alone; voted ground truth it moves only after: maoctl dataset alone NAME")
    _tell_what_goes_on(session, node)
    confirm("Leave the federation?", yes)
    left = session.client.leave_federation(force=force)
    say(f"federation/{left.federation} left" if left.federation else "What was begun is dropped.")
    if not left.known:
        say("Its records were not known here: this node has those again that it had before it joined.")
    if not left.struck:
        say(f"Nobody was told; if others are left there, have it run: maoctl federation remove {node}")


def _tell_what_goes_on(session: CliSession, node: str) -> None:
    """The datasets that others write to as well, and the jobs that write there. Silent where these are not
    known: leaving is not to fail for that.
    """
    from mao_shared.errors import MaoError

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
        say("These jobs go on there; to pause them first:")
    for job in going_on:
        say(f"  maoctl job pause {job}")


@app.command(epilog=example("maoctl federation remove node-9 --yes"))
def remove(context: typer.Context, node: NodeOption, yes: YesOption = False) -> None:
    """Take a node off the federation for good; its certificate is worthless at once. On core nodes only."""
    session = session_of(context)
    confirm(f"Take node {node} off the federation?", yes)
    session.client.remove_node(node)
    say(f"node/{node} removed")


@app.command(epilog=example("maoctl federation promote node-2"))
def promote(context: typer.Context, node: NodeOption, allow_unsafe: AllowUnsafeOption = False) -> None:
    """Let a node run a voting member of the federation's etcd. On core nodes only."""
    session = session_of(context)
    seat = session.client.promote_node(node, allow_unsafe=allow_unsafe)
    say(f"node/{node} promoted; its etcd is at {seat.client}")
    state = session.client.federation()
    _warn(state.warnings)
    if state.advice:
        say(state.advice)


def _warn(warnings: list[str]) -> None:
    for warning in warnings:
        say(f"warning: {warning}")


@app.command(epilog=example("maoctl federation demote node-2"))
def demote(context: typer.Context, node: NodeOption) -> None:
    """Let a core node be a client again. On core nodes only."""
    session = session_of(context)
    was_core = session.client.demote_node(node).was_core
    say(f"node/{node} demoted" if was_core else f"node/{node} is no core node; nothing was changed")
