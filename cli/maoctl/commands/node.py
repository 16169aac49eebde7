"""`maoctl node`: who takes part in the federation."""

from __future__ import annotations

import typer

from maoctl import views
from maoctl.complete import AnyNode, NodeArgument
from maoctl.lookup import did_you_mean, names_of
from maoctl.output import say, write
from maoctl.session import OutputOption, YesOption, confirm, example, session_of

from . import records

app = typer.Typer(help="Nodes of the federation.", no_args_is_help=True, rich_markup_mode=None)


@app.command("get", hidden=True)
@app.command("list", epilog=example("maoctl node list -o wide"))
def get(context: typer.Context, name: AnyNode = None, output: OutputOption = None) -> None:
    """Show the nodes that are present."""
    session = session_of(context)
    records.get(session, session.client.nodes, views.NODE, name, output)


@app.command(epilog=example("maoctl node show node-1"))
def show(context: typer.Context, name: NodeArgument, output: OutputOption = None) -> None:
    """Show everything about one node."""
    session = session_of(context)
    records.show(session, session.client.nodes, views.NODE, name, output)


@app.command(epilog=example("maoctl node signers > allowed_signers"))
def signers(context: typer.Context) -> None:
    """Print whose signatures count, as an allowed-signers file for git verify-commit."""
    write(session_of(context).client.signers())


@app.command(epilog=example("maoctl node remove node-9 --yes"))
def remove(context: typer.Context, name: NodeArgument, yes: YesOption = False) -> None:
    """Take a node that is gone off all datasets."""
    session = session_of(context)
    confirm(f"Take node {name} off all datasets?", yes)
    with did_you_mean((name, names_of(session.client.nodes))):
        session.client.nodes.delete(name)
    say(f"node/{name} removed")
