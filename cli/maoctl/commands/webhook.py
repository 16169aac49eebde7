"""`maoctl webhook`: addresses that all alarms are sent to."""

from __future__ import annotations

from typing import Annotated

import typer

from maoctl import records, views
from maoctl.exits import ExitCode
from maoctl.lookup import segment
from maoctl.output import say, write
from maoctl.session import OutputOption, YesOption, confirm, example, session_of

app = typer.Typer(help="Addresses that alarms are sent to.", no_args_is_help=True, rich_markup_mode=None)

NameArgument = Annotated[str, typer.Argument(help="Name of the webhook.")]


@app.command(epilog=example("maoctl webhook add lab https://lab.example.org/alarms"))
def add(
    context: typer.Context,
    name: NameArgument,
    url: Annotated[str, typer.Argument(help="http:// or https:// address.")],
    secret_file: Annotated[
        typer.FileText | None, typer.Option(help="Secret to sign with; else one is made.", show_default=False)
    ] = None,
) -> None:
    """Send all alarms to an address; prints the secret that they are signed with, once."""
    from mao_shared.models import WebhookRequest

    secret = None if secret_file is None else secret_file.read().strip()
    request = records.build(WebhookRequest, records.given(name=name, url=url, secret=secret))
    made = session_of(context).client.add_webhook(request)
    say(f"webhook/{name} added; its secret, which is not shown again:")
    write(made["secret"] + "\n")


@app.command("get", epilog=example("maoctl webhook get"))
@app.command("list", hidden=True)
def get(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(show_default=False)] = None,
    output: OutputOption = None,
) -> None:
    """Show the webhooks, and what is due there."""
    session = session_of(context)
    if name is None:
        session.show(views.WEBHOOK, session.client.webhooks(), output)
    else:
        session.show_one(views.WEBHOOK, session.client.webhook(segment(name)), output)


@app.command(epilog=example("maoctl webhook remove lab --yes"))
def remove(context: typer.Context, name: NameArgument, yes: YesOption = False) -> None:
    """Remove a webhook with what is due there."""
    confirm(f"Remove webhook {name}?", yes)
    session_of(context).client.remove_webhook(segment(name))
    say(f"webhook/{name} removed")


@app.command(epilog=example("maoctl webhook test lab"))
def test(context: typer.Context, name: NameArgument) -> None:
    """Send a test message now; exit code 1 when it is not taken."""
    told = session_of(context).client.test_webhook(segment(name))
    if not told["delivered"]:
        say(f"webhook/{name} did not take the message: {told['error']}")
        raise typer.Exit(ExitCode.FAILED)
    say(f"webhook/{name} took the message")
