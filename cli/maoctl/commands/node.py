"""`maoctl node`: who takes part in the federation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from maoctl import views_federation
from maoctl.arguments import AnyNode, NodeArgument
from maoctl.lookup import Names, did_you_mean
from maoctl.native import on_this_machine
from maoctl.output import say, write
from maoctl.session import CliSession, OutputOption, YesOption, confirm, example, session_of

if TYPE_CHECKING:
    from mao_shared.models import NodePart

app = typer.Typer(help="Nodes of the federation.", no_args_is_help=True, rich_markup_mode=None)


@app.command("get", hidden=True)
@app.command("list", epilog=example("maoctl node list -o wide"))
def get(context: typer.Context, name: AnyNode = None, output: OutputOption = None) -> None:
    """Show the nodes of the federation, present or not."""
    session = session_of(context)
    if name is None:
        session.show(views_federation.NODE, session.client.node_states(), output)
    else:
        session.show_one(views_federation.NODE, _state(session, name), output)


@app.command(epilog=example("maoctl node show node-1"))
def show(context: typer.Context, name: NodeArgument, output: OutputOption = None) -> None:
    """Show everything about one node."""
    session = session_of(context)
    session.describe(views_federation.NODE, _state(session, name), output)


def _state(session: CliSession, name: str) -> NodePart:
    with did_you_mean((name, _names(session))):
        return session.client.node_state(name)


def _names(session: CliSession) -> Names:
    return lambda: (state.name for state in session.client.node_states())


@app.command(epilog=example("maoctl node signers > allowed_signers"))
def signers(context: typer.Context) -> None:
    """Print whose signatures count, as an allowed-signers file for git verify-commit."""
    write(session_of(context).client.signers())


@app.command("accept-store", epilog=example("maoctl node accept-store --yes"))
def accept_store(context: typer.Context, yes: YesOption = False) -> None:
    """Let the node's etcd count as it is now, after its data were lost or set back."""
    session = session_of(context)
    confirm("Let the node's etcd count as it is now, with what is missing in it?", yes)
    session.client.accept_store()
    say("accepted; 'maoctl doctor' tells what else there is")


BackupTarget = Annotated[str, typer.Argument(metavar="FILE|DIR", help="A new file, a folder, or - (stdout).")]
BackupFile = Annotated[str, typer.Argument(metavar="FILE", help="A backup of this node, or - (stdin).")]


@app.command(epilog=example("maoctl node backup /mnt/backup/"))
def backup(target: BackupTarget) -> None:
    """Back this machine's node up, running or stopped, with its keys and secrets."""
    on_this_machine("backup", "--", target)


@app.command(epilog=example("maoctl node restore mao-node-1-20260131T120000Z.tar.gz"))
def restore(
    file: BackupFile,
    replace: Annotated[
        bool, typer.Option("--replace", help="Set aside what is there; nothing is deleted.")
    ] = False,
) -> None:
    """Put a backup back into this machine's node, which has to be stopped."""
    on_this_machine("restore", *(["--replace"] if replace else []), "--", file)


@app.command(epilog=example("maoctl node remove node-9 --yes"))
def remove(context: typer.Context, name: NodeArgument, yes: YesOption = False) -> None:
    """Take a node that is gone off all datasets."""
    session = session_of(context)
    confirm(f"Take node {name} off all datasets?", yes)
    with did_you_mean((name, _names(session))):
        session.client.nodes.delete(name)
    say(f"node/{name} removed")
