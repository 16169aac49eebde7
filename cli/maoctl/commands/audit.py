"""`maoctl audit`: who changed what on this node."""

from __future__ import annotations

from typing import Annotated

import typer

from maoctl.session import OutputOption, example, get_session
from maoctl.tree import App
from maoctl.views.audit import AUDIT_ENTRY


def audit(
    context: typer.Context,
    actor: Annotated[
        str | None,
        typer.Option(help="Only what this user, or the token of this name, did.", show_default=False),
    ] = None,
    action: Annotated[
        str | None,
        typer.Option(
            help="Only this operation, like pipelines.approve, or all of a group, like pipelines.",
            show_default=False,
        ),
    ] = None,
    subject: Annotated[
        str | None,
        typer.Option(help="Only changes of what has this name or id.", show_default=False),
    ] = None,
    failed: Annotated[
        bool | None,
        typer.Option("--failed/--succeeded", help="Only what was refused or failed, or only the rest."),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Maximum number of entries.")] = 20,
    output: OutputOption = None,
) -> None:
    """List who changed what, newest first; reads are not recorded."""
    session = get_session(context, output)
    period = session.listing
    found = session.client.audit(
        actor=actor, action=action, subject=subject, failed=failed, since=period.since, until=period.until
    )
    session.show(AUDIT_ENTRY, found, limit)


def add_to(app: App) -> None:
    """Add the command to the root."""
    app.command(
        lists=True,
        times=True,
        watched=False,  # the events that a watched list follows are those of runs
        epilog=example(
            "maoctl audit --since 7d",
            "maoctl audit --action pipelines --subject daily -o json",
            "maoctl audit --failed --actor ada",
        ),
    )(audit)
