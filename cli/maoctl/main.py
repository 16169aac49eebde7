"""The command tree, and the error boundary that turns exceptions into exit codes."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated

import typer
from typer.exceptions import TyperException

from mao_shared.errors import MaoError

from .arguments import contexts, from_original
from .commands import (
    alarm,
    apply,
    audit,
    catalogue,
    context,
    dataset,
    doctor,
    external,
    federation,
    job,
    node,
    pipeline,
    run,
    secret,
    tool,
    vote,
)
from .exits import CommandError, ExitCode, report_error
from .output import Format, say, write
from .session import CliSession, OutputOption, example, get_session
from .tree import App, translate_habits

PROGRAM = "maoctl"
_NOUNS = {
    "tool": tool.app,
    "dataset": dataset.app,
    "pipeline": pipeline.app,
    "catalogue": catalogue.app,
    "run": run.app,
    "job": job.app,
    "secret": secret.app,
    "node": node.app,
    "federation": federation.app,
    "alarm": alarm.app,
    "series": alarm.series_app,
    "vote": vote.app,
    "webhook": alarm.webhook_app,
    "context": context.app,
}

app = App(
    name=PROGRAM,
    help="Control a node of the MAO Orchestrator.",
    epilog=example("maoctl doctor", "maoctl pipeline run system-performance --wait"),
    pretty_exceptions_enable=False,
)


def _print_version(context: typer.Context, wanted: bool) -> None:
    if wanted:
        client = _client_version(get_session(context).environ)
        write(f"{PROGRAM} {client['client']} (commit {client['commit'] or 'unknown'})\n")
        raise typer.Exit


def _client_version(environ: Mapping[str, str]) -> dict[str, str | None]:
    from mao_shared import __version__
    from maoctl.build import find_commit

    return {"client": __version__, "commit": find_commit(environ)}


@app.callback()
def root(
    context: typer.Context,
    _version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version and commit.", is_eager=True, callback=_print_version
        ),
    ] = False,
    url: Annotated[
        str | None,
        typer.Option(
            help="Address of the gateway [default: MAO_URL, the context, or 127.0.0.1:MAO_GATEWAY_PORT].",
            show_default=False,
        ),
    ] = None,
    context_name: Annotated[
        str | None,
        typer.Option(
            "--context",
            help="Context to use [default: MAO_CONTEXT, or the one of 'maoctl context use'].",
            show_default=False,
            autocompletion=contexts,
        ),
    ] = None,
    output: OutputOption = None,
) -> None:
    session = get_session(context, output)
    session.url, session.context = url, context_name
    session.output = output or Format.TABLE


@app.command(epilog=example("maoctl version -o json"))
def version(context: typer.Context, output: OutputOption = None) -> None:
    """Show the versions of the client and the node."""
    session = get_session(context, output)
    versions = {**_client_version(session.environ), "node": None}
    try:
        versions["node"] = session.client.status().version
    except MaoError as error:
        say(f"The node's version is not known: {error.detail}")
    session.data(versions, lambda: write("".join(f"{k} {v or '-'}\n" for k, v in versions.items())))


class Shell(StrEnum):
    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


@app.command(
    epilog=example(
        'eval "$(maoctl completion bash)"    # in ~/.bashrc',
        'eval "$(maoctl completion zsh)"     # in ~/.zshrc, after compinit',
        "maoctl completion fish | source     # in ~/.config/fish/config.fish",
    )
)
def completion(context: typer.Context, shell: Annotated[Shell, typer.Argument(help="Shell.")]) -> None:
    """Print the shell completion script."""
    from typer._completion_shared import get_completion_script

    program = context.find_root().info_name or "maoctl"
    script = get_completion_script(
        prog_name=program, complete_var=f"_{program.upper()}_COMPLETE", shell=shell.value
    )
    write(script + "\n")


for _noun, _app in _NOUNS.items():
    app.add_typer(_app, name=_noun)
apply.add_to(app)
doctor.add_to(app)
audit.add_to(app)
external.add_to(app, dataset.app)


_command_of = functools.cache(typer.main.get_command)  # building the tree takes 0.1 s


def run_command(args: Sequence[str], session: CliSession) -> int:
    """Run a command line and return the exit code. Data goes to stdout, everything else to stderr."""
    try:
        result = _command_of(app)(
            args=translate_habits(from_original(args), _NOUNS),
            prog_name=PROGRAM,
            standalone_mode=False,
            obj=session,
        )
        return result if isinstance(result, int) else ExitCode.OK
    except (CommandError, MaoError, TyperException, typer.Abort) as error:
        return report_error(error)
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    finally:
        session.close()


def main() -> None:
    """Entry point of the console script."""
    sys.exit(run_command(sys.argv[1:], CliSession(os.environ)))
