"""`maoctl node`: nodes of the federation, trust, backup and restore of this machine's node."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from maoctl.arguments import AnyNode, NodeArgument
from maoctl.exits import CommandError, ExitCode
from maoctl.lookup import Names, did_you_mean
from maoctl.output import say, write
from maoctl.session import CliSession, OutputOption, YesOption, confirm, example, get_session
from maoctl.tree import App
from maoctl.views.federation import NODE, TRUST

if TYPE_CHECKING:
    from mao_shared.models import NodePart

app = App(help="Nodes of the federation.")


@app.command("list", lists=True, epilog=example("maoctl node list -o wide"))
def get(context: typer.Context, name: AnyNode = None, output: OutputOption = None) -> None:
    """Show the nodes of the federation, present or not."""
    session = get_session(context, output)
    if name is None:
        session.show(NODE, session.client.nodes.states())
    else:
        session.show_one(NODE, _state(session, name))


@app.command(epilog=example("maoctl node show node-1"))
def show(context: typer.Context, name: NodeArgument, output: OutputOption = None) -> None:
    """Show the details of a node."""
    session = get_session(context, output)
    session.describe(NODE, _state(session, name))


def _state(session: CliSession, name: str) -> NodePart:
    with did_you_mean((name, _names(session))):
        return session.client.nodes.state(name)


def _names(session: CliSession) -> Names:
    return lambda: (state.name for state in session.client.nodes.states())


@app.command(epilog=example("maoctl node signers > allowed_signers"))
def signers(context: typer.Context) -> None:
    """Print the federation's signers as an allowed-signers file for git verify-commit."""
    write(get_session(context).client.nodes.signers())


@app.command(epilog=example("maoctl node remove node-9 --yes"))
def remove(context: typer.Context, name: NodeArgument, yes: YesOption = False) -> None:
    """Remove a node from the node lists of all datasets."""
    session = get_session(context)
    confirm(f"Remove node {name} from all datasets?", yes)
    with did_you_mean((name, _names(session))):
        session.client.nodes.delete(name)
    say(f"node/{name} removed")


# Trust


@app.command(epilog=example("maoctl node trust node-2"))
def trust(context: typer.Context, node: NodeArgument) -> None:
    """Trust a node: apply its operator's changes without approval, except for new privileges."""
    session = get_session(context)
    _state(session, node)  # a misspelt name would be trusted once a node has it
    session.client.nodes.trust(node)
    say(f"node/{node} is trusted")


@app.command(epilog=example("maoctl node untrust node-2"))
def untrust(context: typer.Context, node: NodeArgument) -> None:
    """Stop trusting a node: its operator's changes need approval again."""
    get_session(context).client.nodes.untrust(node)
    say(f"node/{node} is no longer trusted")


@app.command(lists=True, epilog=example("maoctl node trusted"))
def trusted(context: typer.Context, output: OutputOption = None) -> None:
    """List the trusted nodes, whose changes are applied without approval."""
    session = get_session(context, output)
    session.show(TRUST, session.client.nodes.trusted())


# This machine's node


@app.command("accept-store", epilog=example("maoctl node accept-store --yes"))
def accept_store(context: typer.Context, yes: YesOption = False) -> None:
    """Accept the node's etcd as it is now, after data was lost or rolled back."""
    session = get_session(context)
    confirm("Accept the node's etcd as it is now, with data missing?", yes)
    session.client.accept_store()
    say("accepted\nnext: maoctl doctor")


BackupTarget = Annotated[str, typer.Argument(metavar="FILE|DIR", help="New file, folder, or - for stdout.")]
BackupFile = Annotated[str, typer.Argument(metavar="FILE", help="Backup of this node, or - for stdin.")]


@app.command(epilog=example("maoctl node backup /mnt/backup/"))
def backup(target: BackupTarget) -> None:
    """Back up this machine's node, running or stopped, with its keys and secrets."""
    run_launcher("backup", "--", target)


@app.command(epilog=example("maoctl node restore mao-node-1-20260131T120000Z.tar.gz"))
def restore(
    file: BackupFile,
    replace: Annotated[
        bool, typer.Option("--replace", help="Set aside the existing data; nothing is deleted.")
    ] = False,
) -> None:
    """Restore a backup into this machine's node, which must be stopped."""
    run_launcher("restore", *(["--replace"] if replace else []), "--", file)


LAUNCHER = "mao_node"


def run_launcher(*arguments: str) -> None:
    """Run the node's launcher in this environment. Raises CommandError with its exit code if it fails."""
    if importlib.util.find_spec(LAUNCHER) is None:
        raise CommandError(
            ExitCode.FAILED,
            f"'maoctl node {arguments[0]}' needs the node's files, and no node is installed here.",
            next="On the node's machine, in its checkout: ./dev maoctl node "
            f"{arguments[0]} …; under compose: docker compose run --rm -T {arguments[0]} …",
        )
    installed = Path(sys.prefix).parent / "var/etcd/bin"  # as in ./dev: the system's etcd may be too old
    path = os.environ.get("PATH", os.defpath)
    if (installed / "etcd").is_file():
        path = f"{installed}{os.pathsep}{path}"
    command = [sys.executable, "-m", LAUNCHER, *arguments]
    done = subprocess.run(command, env={**os.environ, "PATH": path}, check=False)  # noqa: S603
    if done.returncode:
        raise CommandError(
            ExitCode(done.returncode) if done.returncode in list(ExitCode) else ExitCode.FAILED
        )
