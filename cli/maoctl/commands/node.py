"""`maoctl node`: the nodes of the federation, whom this one trusts, and this machine's backup."""

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
from maoctl.views.federation import NODE, TRUST

if TYPE_CHECKING:
    from mao_shared.models import NodePart

app = typer.Typer(help="Nodes of the federation.", no_args_is_help=True, rich_markup_mode=None)


@app.command("get", hidden=True)
@app.command("list", epilog=example("maoctl node list -o wide"))
def get(context: typer.Context, name: AnyNode = None, output: OutputOption = None) -> None:
    """Show the nodes of the federation, present or not."""
    session = get_session(context, output)
    if name is None:
        session.show(NODE, session.client.nodes.states())
    else:
        session.show_one(NODE, _state(session, name))


@app.command(epilog=example("maoctl node show node-1"))
def show(context: typer.Context, name: NodeArgument, output: OutputOption = None) -> None:
    """Show everything about one node."""
    session = get_session(context, output)
    session.describe(NODE, _state(session, name))


def _state(session: CliSession, name: str) -> NodePart:
    with did_you_mean((name, _names(session))):
        return session.client.nodes.state(name)


def _names(session: CliSession) -> Names:
    return lambda: (state.name for state in session.client.nodes.states())


@app.command(epilog=example("maoctl node signers > allowed_signers"))
def signers(context: typer.Context) -> None:
    """Print the signers of the federation, as an allowed-signers file for git verify-commit."""
    write(get_session(context).client.nodes.signers())


@app.command(epilog=example("maoctl node remove node-9 --yes"))
def remove(context: typer.Context, name: NodeArgument, yes: YesOption = False) -> None:
    """Remove a node that is gone from all datasets."""
    session = get_session(context)
    confirm(f"Remove node {name} from all datasets?", yes)
    with did_you_mean((name, _names(session))):
        session.client.nodes.delete(name)
    say(f"node/{name} removed")


# Trust


@app.command(epilog=example("maoctl node trust node-2"))
def trust(context: typer.Context, node: NodeArgument) -> None:
    """Trust a node: apply its operator's changes without asking; privileges are still asked for."""
    session = get_session(context)
    _state(session, node)  # a misspelt name would be trusted as soon as some node has it
    session.client.nodes.trust(node)
    say(f"node/{node} is trusted")


@app.command(epilog=example("maoctl node untrust node-2"))
def untrust(context: typer.Context, node: NodeArgument) -> None:
    """Stop trusting a node: its operator's changes need approval again."""
    get_session(context).client.nodes.untrust(node)
    say(f"node/{node} is no longer trusted")


@app.command(epilog=example("maoctl node trusted"))
def trusted(context: typer.Context, output: OutputOption = None) -> None:
    """List the trusted nodes, whose changes are applied without asking."""
    session = get_session(context, output)
    session.show(TRUST, session.client.nodes.trusted())


# This machine's node


@app.command("accept-store", epilog=example("maoctl node accept-store --yes"))
def accept_store(context: typer.Context, yes: YesOption = False) -> None:
    """Accept the node's etcd as it is now, after its data were lost or set back."""
    session = get_session(context)
    confirm("Accept the node's etcd as it is now, with data missing?", yes)
    session.client.accept_store()
    say("accepted; see what else there is: maoctl doctor")


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
        bool, typer.Option("--replace", help="Set aside the existing data; nothing is deleted.")
    ] = False,
) -> None:
    """Restore a backup into this machine's node, which has to be stopped."""
    on_this_machine("restore", *(["--replace"] if replace else []), "--", file)


LAUNCHER = "mao_node"


def on_this_machine(*words: str) -> None:
    """Runs the launcher with the settings of this environment; raises CommandError with its exit code."""
    if importlib.util.find_spec(LAUNCHER) is None:
        raise CommandError(
            ExitCode.FAILED,
            f"'maoctl node {words[0]}' reads the node's own files, and no node is installed here.",
            next="Call it on the node's machine, in its checkout: ./dev maoctl node "
            f"{words[0]} …; under compose: docker compose run --rm -T {words[0]}, see docs/operations.md.",
        )
    done = subprocess.run([sys.executable, "-m", LAUNCHER, *words], env=_with_fetched_etcd(), check=False)  # noqa: S603
    if done.returncode:
        raise CommandError(
            ExitCode(done.returncode) if done.returncode in list(ExitCode) else ExitCode.FAILED
        )


def _with_fetched_etcd() -> dict[str, str]:
    """As `./dev` does: the etcd fetched for the node's checkout comes before the machine's own, which may be
    too old for the data."""
    fetched = Path(sys.prefix).parent / "var/etcd/bin"
    path = os.environ.get("PATH", os.defpath)
    found = f"{fetched}{os.pathsep}{path}" if (fetched / "etcd").is_file() else path
    return {**os.environ, "PATH": found}
