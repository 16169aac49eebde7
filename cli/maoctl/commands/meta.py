"""`maoctl version` and `maoctl completion`: about the client itself."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from maoctl.output import say, write
from maoctl.session import OutputOption, example, session_of


class Shell(StrEnum):
    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def version(context: typer.Context, output: OutputOption = None) -> None:
    """Show the versions of client and node."""
    from mao_shared import __version__
    from mao_shared.errors import MaoError

    session = session_of(context)
    versions = {"client": __version__, "node": None}
    try:
        versions["node"] = session.client.status().get("version")
    except MaoError as error:
        say(f"The node's version is not known: {error.detail}")
    session.data(versions, output, lambda: write("".join(f"{k} {v or '-'}\n" for k, v in versions.items())))


def completion(context: typer.Context, shell: Annotated[Shell, typer.Argument(help="Which shell.")]) -> None:
    """Print the script that completes commands and names."""
    from typer._completion_shared import get_completion_script

    program = context.find_root().info_name or "maoctl"
    script = get_completion_script(
        prog_name=program, complete_var=f"_{program.upper()}_COMPLETE", shell=shell.value
    )
    write(script + "\n")


def add_to(app: typer.Typer) -> None:
    """Adds the commands to the root."""
    app.command(epilog=example("maoctl version -o json"))(version)
    app.command(epilog=example('eval "$(maoctl completion bash)"'))(completion)
