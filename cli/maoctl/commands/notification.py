"""`maoctl alarm channel`, `rule`, `heartbeat` and `messages`: who is told about alarms, and what was sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mao_shared.errors import InvalidInput
from maoctl import records
from maoctl.arguments import (
    PipelineArgument,
    channels,
    datasets,
    duration_option,
    heartbeats,
    pipelines,
    rules,
    strip_kind,
)
from maoctl.output import say
from maoctl.receivers import Receivers
from maoctl.session import OutputOption, YesOption, example, get_session
from maoctl.tree import App
from maoctl.views.notification import CHANNEL, HEARTBEAT, MESSAGE, RULE

if TYPE_CHECKING:
    from mao_shared.models import notification

channel_app = App(help="Channels by which people are told.")
rule_app = App(help="Rules: which alarms go to which channels.")
heartbeat_app = App(help="Addresses pinged about a pipeline's runs.")

UrlArgument = Annotated[
    str | None, typer.Argument(help="Its URL; a secret, so --url-file keeps it from the history.")
]
UrlFileOption = Annotated[
    typer.FileText | None, typer.Option(help="File with the URL; - for stdin.", show_default=False)
]


def _read_url(url: str | None, url_file: typer.FileText | None) -> str:
    if (url is None) == (url_file is None):
        raise InvalidInput(
            "Give the URL either as an argument or in a file.",
            code="usage",
            next="Give it with --url-file FILE.",
        )
    return url if url is not None else (url_file.read().strip() if url_file is not None else "")


# Channels

ChannelArgument = Annotated[
    str,
    typer.Argument(help="Name of the channel.", autocompletion=channels, callback=strip_kind("channel")),
]
AnyChannel = Annotated[
    str | None,
    typer.Argument(
        help="Name of the channel [default: all].",
        show_default=False,
        autocompletion=channels,
        callback=strip_kind("channel"),
    ),
]


def _channels(context: typer.Context, output: OutputOption = None) -> Receivers[notification.ChannelState]:
    session = get_session(context, output)
    calls = session.client.notifications
    return Receivers(session, CHANNEL, calls.channels, calls.channel, calls.remove_channel)


@channel_app.command(
    "add",
    epilog=example(
        "maoctl alarm channel add phone ntfys://ntfy.example.org/alarms",
        "maoctl alarm channel add mail --url-file mail.url",
    ),
)
def add_channel(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of the channel.")],
    url: UrlArgument = None,
    url_file: UrlFileOption = None,
) -> None:
    """Add a channel, by the URL of an Apprise service: mail, Slack, Matrix, ntfy and many others."""
    from mao_shared.models.notification import ChannelRequest

    request = records.build(ChannelRequest, {"name": name, "url": _read_url(url, url_file)})
    get_session(context).client.notifications.add_channel(request)
    say(f"channel/{name} added; try it: maoctl alarm channel test {name}")


@channel_app.command("get", lists=True, epilog=example("maoctl alarm channel get"))
def get_channel(context: typer.Context, name: AnyChannel = None, output: OutputOption = None) -> None:
    """Show the channels and their pending messages."""
    _channels(context, output).get(name)


@channel_app.command("show", epilog=example("maoctl alarm channel show phone"))
def show_channel(context: typer.Context, name: ChannelArgument, output: OutputOption = None) -> None:
    """Show the details of a channel."""
    _channels(context, output).show(name)


@channel_app.command("remove", epilog=example("maoctl alarm channel remove phone --yes"))
def remove_channel(context: typer.Context, name: ChannelArgument, yes: YesOption = False) -> None:
    """Remove a channel and its pending messages."""
    _channels(context).remove(name, yes)


@channel_app.command("test", epilog=example("maoctl alarm channel test phone"))
def test_channel(context: typer.Context, name: ChannelArgument) -> None:
    """Send a test message to a channel; exit code 1 if it is not accepted."""
    known = _channels(context)
    known.test(name, known.session.client.notifications.test_channel)


# Rules

RuleArgument = Annotated[
    str, typer.Argument(help="Name of the rule.", autocompletion=rules, callback=strip_kind("rule"))
]
AnyRule = Annotated[
    str | None,
    typer.Argument(
        help="Name of the rule [default: all].",
        show_default=False,
        autocompletion=rules,
        callback=strip_kind("rule"),
    ),
]


def _rules(context: typer.Context, output: OutputOption = None) -> Receivers[notification.Rule]:
    session = get_session(context, output)
    calls = session.client.notifications
    return Receivers(session, RULE, calls.rules, calls.rule, calls.remove_rule)


@rule_app.command(
    "set",
    epilog=example(
        "maoctl alarm rule set night --channel mail --quiet 22:00-07:00 --timezone Europe/Zurich",
        "maoctl alarm rule set flaky --pipeline crawl --kind run-failed --channel phone --failures 3",
        "maoctl alarm rule set mute-spikes --kind spike",
    ),
)
def set_rule(
    context: typer.Context,
    name: RuleArgument,
    channel: Annotated[
        list[str] | None,
        typer.Option(
            help="Channel to tell; repeat it [default: none, which mutes].", autocompletion=channels
        ),
    ] = None,
    kind: Annotated[
        list[str] | None, typer.Option(help="Kind of alarm, such as run-failed [default: all].")
    ] = None,
    pipeline: Annotated[
        list[str] | None, typer.Option(help="Pipeline [default: all].", autocompletion=pipelines)
    ] = None,
    dataset: Annotated[
        list[str] | None, typer.Option(help="Dataset [default: all].", autocompletion=datasets)
    ] = None,
    reminder: Annotated[
        float | None, duration_option("Remind after this time, like 12h [default: never].")
    ] = None,
    quiet: Annotated[
        str | None, typer.Option(help="Send nothing in these hours, like 22:00-07:00.", show_default=False)
    ] = None,
    timezone: Annotated[str, typer.Option(help="Time zone of the quiet hours.")] = "UTC",
    failures: Annotated[int, typer.Option(min=1, help="Failed runs in a row before a failure is sent.")] = 1,
    ends: Annotated[bool, typer.Option(help="Tell the end of an alarm too.")] = True,
    output: OutputOption = None,
) -> None:
    """Add or replace a rule. An alarm that no rule matches goes to all channels."""
    from mao_shared.models.notification import Rule

    start, _, end = (quiet or "").partition("-")
    fields = records.given(
        name=name,
        channels=channel,
        kinds=kind,
        pipelines=pipeline,
        datasets=dataset,
        reminder=reminder,
        quiet=None if quiet is None else {"start": start, "end": end, "timezone": timezone},
        failures=failures,
        ends=ends,
    )
    session = get_session(context, output)
    session.done(RULE, session.client.notifications.set_rule(records.build(Rule, fields)), "set")


@rule_app.command("get", lists=True, epilog=example("maoctl alarm rule get"))
def get_rule(context: typer.Context, name: AnyRule = None, output: OutputOption = None) -> None:
    """Show the rules, or one."""
    _rules(context, output).get(name)


@rule_app.command("show", epilog=example("maoctl alarm rule show night"))
def show_rule(context: typer.Context, name: RuleArgument, output: OutputOption = None) -> None:
    """Show the details of a rule."""
    _rules(context, output).show(name)


@rule_app.command("remove", epilog=example("maoctl alarm rule remove night --yes"))
def remove_rule(context: typer.Context, name: RuleArgument, yes: YesOption = False) -> None:
    """Remove a rule."""
    _rules(context).remove(name, yes)


# Heartbeats, which have the names of their pipelines

HeartbeatArgument = Annotated[
    str,
    typer.Argument(
        help="Name of the pipeline.",
        autocompletion=heartbeats,
        callback=strip_kind("heartbeat", "pipeline"),
    ),
]
AnyHeartbeat = Annotated[
    str | None,
    typer.Argument(
        help="Name of the pipeline [default: all].",
        show_default=False,
        autocompletion=heartbeats,
        callback=strip_kind("heartbeat", "pipeline"),
    ),
]


def _heartbeats(
    context: typer.Context, output: OutputOption = None
) -> Receivers[notification.HeartbeatState]:
    session = get_session(context, output)
    calls = session.client.notifications
    return Receivers(session, HEARTBEAT, calls.heartbeats, calls.heartbeat, calls.remove_heartbeat)


@heartbeat_app.command(
    "set", epilog=example("maoctl alarm heartbeat set crawl https://hc.example.org/ping/8f2c")
)
def set_heartbeat(
    context: typer.Context,
    pipeline: PipelineArgument,
    url: UrlArgument = None,
    url_file: UrlFileOption = None,
) -> None:
    """Ping an address when runs succeed, with /start when they start and /fail when they fail."""
    client = get_session(context).client
    client.notifications.set_heartbeat(pipeline, _read_url(url, url_file))
    say(f"heartbeat/{pipeline} set; try it: maoctl alarm heartbeat test {pipeline}")


@heartbeat_app.command("get", lists=True, times=True, epilog=example("maoctl alarm heartbeat get"))
def get_heartbeat(context: typer.Context, pipeline: AnyHeartbeat = None, output: OutputOption = None) -> None:
    """Show the heartbeats and their newest pings."""
    _heartbeats(context, output).get(pipeline)


@heartbeat_app.command("show", epilog=example("maoctl alarm heartbeat show crawl"))
def show_heartbeat(context: typer.Context, pipeline: HeartbeatArgument, output: OutputOption = None) -> None:
    """Show the details of a heartbeat."""
    _heartbeats(context, output).show(pipeline)


@heartbeat_app.command("remove", epilog=example("maoctl alarm heartbeat remove crawl --yes"))
def remove_heartbeat(context: typer.Context, pipeline: HeartbeatArgument, yes: YesOption = False) -> None:
    """Stop pinging about a pipeline."""
    _heartbeats(context).remove(pipeline, yes)


@heartbeat_app.command("test", epilog=example("maoctl alarm heartbeat test crawl"))
def test_heartbeat(context: typer.Context, pipeline: HeartbeatArgument) -> None:
    """Ping the address itself now, as for a success; exit code 1 if it is not accepted."""
    known = _heartbeats(context)
    known.test(pipeline, known.session.client.notifications.test_heartbeat)


# Messages


def get_messages(
    context: typer.Context,
    channel: Annotated[
        str | None,
        typer.Option(
            help="Only those to this channel or heartbeat.",
            show_default=False,
            autocompletion=channels,
            callback=strip_kind("channel", "heartbeat"),
        ),
    ] = None,
    about: Annotated[
        str | None,
        typer.Option(
            help="Only those about this alarm or run.",
            show_default=False,
            callback=strip_kind("alarm", "run"),
        ),
    ] = None,
    output: OutputOption = None,
) -> None:
    """Show the messages to channels and the pings of heartbeats, delivered or not."""
    session = get_session(context, output)
    session.show(MESSAGE, session.client.notifications.messages(channel, about))


def add_to(app: App) -> None:
    """Add the commands to `maoctl alarm`."""
    app.add_typer(channel_app, name="channel")
    app.add_typer(rule_app, name="rule")
    app.add_typer(heartbeat_app, name="heartbeat")
    app.command(
        "messages",
        lists=True,
        times=True,
        epilog=example("maoctl alarm messages", "maoctl alarm messages --channel phone"),
    )(get_messages)
