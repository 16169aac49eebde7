"""`maoctl federation`: nodes that share a registry, and which of them run its etcd."""

from __future__ import annotations

import sys
from datetime import timedelta
from typing import Annotated

import typer

from mao_shared.errors import InvalidInput, MaoError
from maoctl.exits import CommandError, ExitCode
from maoctl.output import say, write
from maoctl.session import CliSession, OutputOption, YesOption, confirm, example, get_session
from maoctl.tree import App
from maoctl.views.federation import FEDERATION, MEMBER

app = App(help="Nodes that share one registry.")

AllowUnsafeOption = Annotated[
    bool,
    typer.Option(
        "--allow-unsafe-etcd-that-ignores-key-rights",
        help="Accept an etcd that lets every member read and write all keys (CVE-2026-33343).",
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
    """Create a federation on this node, with all records registered here."""
    session = get_session(context, output)
    made = session.client.federation.create(name, allow_unsafe=allow_unsafe)
    session.done(FEDERATION, made, "created")
    _say_warnings(made.warnings)
    say("next: maoctl federation invite NODE")


@app.command(epilog=example("maoctl federation invite node-2 > token"))
def invite(
    context: typer.Context,
    node: NodeOption,
    valid: Annotated[
        str | None, typer.Option(help="Validity, like 2h or 7d [default: 1d].", show_default=False)
    ] = None,
    output: OutputOption = None,
) -> None:
    """Print a token with which one node can join once; keep it secret. On core nodes only."""
    session = get_session(context, output)
    made = session.client.federation.invite(node, _seconds(valid))
    soon = made.expires_at - session.now < timedelta(hours=1)
    until = f"{made.expires_at:%Y-%m-%d %H:%M:%S}" if soon else f"{made.expires_at:%Y-%m-%d %H:%M}"
    say(f"invitation of {node} to {made.federation}, valid until {until} UTC")
    say(f"authority {made.fingerprint}")
    say(f"next: on {node}: maoctl federation join TOKEN")
    session.data(made, lambda: write(made.token + "\n"))


def _seconds(text: str | None) -> float | None:
    """Parse the validity of an invitation. Raises CommandError if it is invalid."""
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
    token: Annotated[str, typer.Argument(help="Token printed by 'invite'; - for stdin.")],
    allow_unsafe: AllowUnsafeOption = False,
    output: OutputOption = None,
) -> None:
    """Join a federation and publish this node's records in it; fails if names clash."""
    session = get_session(context, output)
    text = (sys.stdin.read() if token == "-" else token).strip()  # noqa: S105
    joined = session.client.federation.join(text, allow_unsafe=allow_unsafe)
    session.done(FEDERATION, joined, "joined")
    _say_warnings(joined.warnings)
    if joined.published:
        say(f"published to all nodes of {joined.name}: {', '.join(joined.published)}")


@app.command("list", lists=True, epilog=example("maoctl federation list -o wide"))
def list_(context: typer.Context, output: OutputOption = None) -> None:
    """List the federation's nodes, their presence, and their part in its etcd."""
    session = get_session(context, output)
    session.show(MEMBER, session.client.federation.members())


@app.command(epilog=example("maoctl federation show"))
def show(context: typer.Context, output: OutputOption = None) -> None:
    """Show the federation that this node is in."""
    session = get_session(context, output)
    state = session.client.federation.get()
    session.describe(FEDERATION, state)


@app.command(epilog=example("maoctl federation leave --yes"))
def leave(
    context: typer.Context,
    force: Annotated[
        bool, typer.Option("--force", help="Leave even if the federation does not answer.")
    ] = False,
    yes: YesOption = False,
) -> None:
    """Leave the federation; this node continues alone with a copy of its records."""
    session = get_session(context)
    node = session.client.status().node
    say("Alone, this node updates a voted ground truth only after: maoctl dataset alone NAME")
    _report_shared_work(session, node)
    confirm("Leave the federation?", yes)
    left = session.client.federation.leave(force=force)
    say(f"federation/{left.federation} left" if left.federation else "The incomplete membership was removed.")
    if not left.known:
        say("The federation's records were not available: this node has its records from before it joined.")
    if not left.struck:
        say(f"No other node was informed; if any are left, run on a core: maoctl federation remove {node}")


def _report_shared_work(session: CliSession, node: str) -> None:
    """Name the datasets that other nodes write to as well, and the jobs that write there.

    Silent if they are not known: leaving must not fail because of this.
    """
    try:
        written = {enrolment.pipeline: enrolment.outputs for enrolment in session.client.enrolments.list()}
        ours = set[str]().union(*written.values())
        datasets = [dataset for dataset in session.client.datasets.list() if dataset.name in ours]
        jobs = [job for job in session.client.jobs.list() if not job.paused]
    except MaoError:
        return
    names = {dataset.name for dataset in datasets if set(dataset.nodes) - {node}}
    if names:
        say(f"Other nodes also push to the remotes of {', '.join(sorted(names))} and vote there.")
    active = [job.id for job in jobs if written.get(job.pipeline, set()) & names]
    if active:
        say("These jobs continue to write there; to pause them first:")
    for job_id in active:
        say(f"  maoctl job pause {job_id}")


@app.command(epilog=example("maoctl federation remove node-9 --yes"))
def remove(context: typer.Context, node: NodeOption, yes: YesOption = False) -> None:
    """Remove a node from the federation permanently and revoke its access. On core nodes only."""
    session = get_session(context)
    confirm(f"Remove node {node} from the federation?", yes)
    session.client.federation.remove(node)
    say(f"node/{node} removed")


@app.command(epilog=example("maoctl federation promote node-2"))
def promote(context: typer.Context, node: NodeOption, allow_unsafe: AllowUnsafeOption = False) -> None:
    """Promote a node to a core node, which runs a voting member of the etcd cluster. On core nodes only."""
    session = get_session(context)
    member = session.client.federation.promote(node, allow_unsafe=allow_unsafe)
    say(f"node/{node} promoted; its etcd is at {member.client}")
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
