"""`maoctl secret`: passwords and keys that the node keeps encrypted and gives to tools."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from mao_shared.errors import InvalidInput
from maoctl.arguments import secrets, strip_kind
from maoctl.output import say
from maoctl.receivers import Receivers
from maoctl.session import CliSession, OutputOption, YesOption, example, get_session
from maoctl.tree import App
from maoctl.views.secret import SECRET

if TYPE_CHECKING:
    from mao_shared.models.secret import SecretState

app = App(help="Secrets that the node gives to tools.")

SecretArgument = Annotated[
    str, typer.Argument(help="Name of the secret.", autocompletion=secrets, callback=strip_kind("secret"))
]
AnySecret = Annotated[
    str | None,
    typer.Argument(
        help="Name of the secret [default: all].",
        show_default=False,
        autocompletion=secrets,
        callback=strip_kind("secret"),
    ),
]


def _secrets(session: CliSession) -> Receivers[SecretState]:
    calls = session.client.secrets
    return Receivers(session, SECRET, calls.list, calls.get, calls.remove)


@app.command(
    "set",
    epilog=example(
        "maoctl secret set github-token",
        "maoctl secret set deploy-key --from-file ~/.ssh/deploy",
        "pass show token | maoctl secret set token --from-file -",
    ),
)
def set_secret(
    context: typer.Context,
    name: SecretArgument,
    from_file: Annotated[
        typer.FileText | None,
        typer.Option(help="File with the value; - for stdin [default: ask].", show_default=False),
    ] = None,
) -> None:
    """Set a secret: asked for without echo, or read from a file, of which a newline at the end is dropped.

    Runs that start from now on get the new value.
    """
    if from_file is not None:
        value = from_file.read().removesuffix("\n")
    elif sys.stdin.isatty():
        value = typer.prompt(f"Value of {name}", hide_input=True, confirmation_prompt=True, err=True)
    else:
        raise InvalidInput(
            "There is no terminal to ask for the value.",
            code="usage",
            next=f"Give it in a file, or on stdin: maoctl secret set {name} --from-file -",
        )
    session = get_session(context)
    state = session.client.secrets.set(name, value)
    use = f"; given to {', '.join(state.used_by)}" if state.used_by else ""
    say(f"secret/{name} set{use}")


@app.command("get", lists=True, epilog=example("maoctl secret get"))
def get_secret(context: typer.Context, name: AnySecret = None, output: OutputOption = None) -> None:
    """Show the secrets and the steps that get them, never their values."""
    _secrets(get_session(context, output)).get(name)


@app.command("show", epilog=example("maoctl secret show github-token"))
def show_secret(context: typer.Context, name: SecretArgument, output: OutputOption = None) -> None:
    """Show the details of a secret, not its value."""
    _secrets(get_session(context, output)).show(name)


@app.command("remove", epilog=example("maoctl secret remove github-token --yes"))
def remove_secret(context: typer.Context, name: SecretArgument, yes: YesOption = False) -> None:
    """Remove a secret that no enrolled pipeline uses."""
    _secrets(get_session(context)).remove(name, yes)


@app.command("rotate", epilog=example("maoctl secret rotate"))
def rotate_secrets(context: typer.Context) -> None:
    """Encrypt all secrets with a new key, and remove the old one."""
    count = get_session(context).client.secrets.rotate()
    say(f"secrets encrypted with a new key: {count}")
