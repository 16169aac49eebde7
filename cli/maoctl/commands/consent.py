"""`maoctl pipeline diff|approve` and `maoctl node trust|untrust|trusted`: what may run here."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

import typer

from maoctl import views, views_federation
from maoctl.arguments import NodeArgument, PipelineArgument
from maoctl.exits import CommandError, ExitCode
from maoctl.lookup import did_you_mean, names_of
from maoctl.output import say, write
from maoctl.session import CliSession, OutputOption, YesOption, confirm, example, session_of
from maoctl.text import harmless, harmless_line

if TYPE_CHECKING:
    from mao_shared.models import PipelineDiff

AgreeOption = Annotated[
    list[str] | None,
    typer.Option("--agree", help="Grants what a tool asks for; may be repeated.", show_default=False),
]
RevisionOption = Annotated[
    str | None,
    typer.Option("--revision", help="What `diff` has shown; refused if it is another.", show_default=False),
]


def add_to(pipeline: typer.Typer, node: typer.Typer) -> None:
    """Registers the commands under their nouns."""
    pipeline.command(epilog=example("maoctl pipeline diff daily"))(diff)
    pipeline.command(epilog=example("maoctl pipeline approve daily --revision 1f3a5c7d9b2e4a60…"))(approve)
    node.command(epilog=example("maoctl node trust node-2"))(trust)
    node.command(epilog=example("maoctl node untrust node-2"))(untrust)
    node.command(epilog=example("maoctl node trusted"))(trusted)


def diff(context: typer.Context, name: PipelineArgument, output: OutputOption = None) -> None:
    """Show what was changed in a pipeline since this node agreed to it."""
    session = session_of(context)
    found = _diff(session, name)
    session.data(found.model_dump(mode="json"), output, lambda: _print(found))


def _diff(session: CliSession, name: str) -> PipelineDiff:
    with did_you_mean((name, names_of(session.client.pipelines))):
        return session.client.pipeline_diff(name)


def _print(found: PipelineDiff) -> None:
    for name, image in found.rebuilt.items():
        say(f"# image {harmless_line(name)} was built or pulled anew: here it is {harmless_line(image.here)}")
        say(f"#   runs use {harmless_line(image.pinned)}; let them use the new one:")
        say(f"#   maoctl pipeline enrol {found.pipeline}")
    if not found.diff:
        say(f"pipeline/{found.pipeline}: nothing is pending; it runs here as it is registered")
        return
    write(harmless(found.diff) + "\n")
    for label, nodes in found.endorsed.items():
        say(f"# {label}: {'changed by ' + ', '.join(nodes) if nodes else 'no trusted node stands for it'}")
    from mao_shared.models.tool import asked_words

    for word in found.agree:
        said = harmless_line(asked_words([word]))
        say(f"# asks for {said}: --agree '{harmless_line(word)}'")
    say(f"# maoctl pipeline approve {found.pipeline} --revision {found.definition}")


def approve(
    context: typer.Context,
    name: PipelineArgument,
    revision: RevisionOption = None,
    agree: AgreeOption = None,
    yes: YesOption = False,
    output: OutputOption = None,
) -> None:
    """Let this node run a pipeline as it was shown."""
    session = session_of(context)
    if revision is None:
        found = _diff(session, name)
        _print(found)
        if not found.diff:
            return
        confirm(f"Run pipeline {name} on this node like that?", yes)
        revision = found.definition
    elif not re.fullmatch("[0-9a-f]{32}", revision):
        raise CommandError(
            ExitCode.USAGE,
            f"{revision!r} is no revision of a pipeline: those have 32 digits, 0 to f.",
            f"Take the one that is shown: maoctl pipeline diff {name}",
        )
    with did_you_mean((name, names_of(session.client.pipelines))):
        enrolment = session.client.approve(name, revision, agree or [])
    session.done(views.ENROLMENT, enrolment, "approved", output)


def trust(context: typer.Context, node: NodeArgument) -> None:
    """Take over unasked what the operator of a node changes; privileges are asked for nevertheless."""
    client = session_of(context).client
    with did_you_mean((node, lambda: (state.name for state in client.node_states()))):
        client.node_state(node)  # a name typed wrongly would be trusted as soon as somebody bears it
    client.trust(node)
    say(f"node/{node} is trusted")


def untrust(context: typer.Context, node: NodeArgument) -> None:
    """Ask again for what the operator of a node changes."""
    session_of(context).client.untrust(node)
    say(f"node/{node} is trusted no longer")


def trusted(context: typer.Context, output: OutputOption = None) -> None:
    """Show whose changes are taken over unasked."""
    session = session_of(context)
    session.show(views_federation.TRUST, session.client.trusted(), output)
