"""`maoctl alarm channel`, `rule`, `heartbeat` and `messages`: who is told about alarms, and what was sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mao_shared.errors import InvalidInput
from maoctl import records
from maoctl.exits import ExitCode
from maoctl.output import Column, TableView, say
from maoctl.session import OutputOption, YesOption, confirm, example, get_session
from maoctl.text import relative

if TYPE_CHECKING:
    from mao_shared.models import notification

channel_app = typer.Typer(
    help="Channels by which people are told.", no_args_is_help=True, rich_markup_mode=None
)
rule_app = typer.Typer(
    help="Rules: which alarms go to which channels.", no_args_is_help=True, rich_markup_mode=None
)
heartbeat_app = typer.Typer(
    help="Addresses pinged about a pipeline's runs.", no_args_is_help=True, rich_markup_mode=None
)

CHANNEL: TableView[notification.ChannelState] = TableView(
    "channel",
    [
        Column("NAME", lambda channel, _: channel.name, keep_whole=True),
        Column("URL", lambda channel, _: channel.url),
        Column("PENDING", lambda channel, _: channel.waiting),
        Column("FAILED", lambda channel, _: channel.given_up),
        Column("LAST ERROR", lambda channel, _: channel.last_error),
    ],
    lambda channel: channel.name,
)
RULE: TableView[notification.Rule] = TableView(
    "rule",
    [
        Column("NAME", lambda rule, _: rule.name, keep_whole=True),
        Column("KINDS", lambda rule, _: rule.kinds or "all"),
        Column("PIPELINES", lambda rule, _: rule.pipelines or "all"),
        Column("DATASETS", lambda rule, _: rule.datasets or "all"),
        Column("CHANNELS", lambda rule, _: rule.channels or "(none)"),
        Column("REMINDER", lambda rule, _: f"{rule.reminder:.0f}s" if rule.reminder else None, wide=True),
        Column("QUIET", lambda rule, _: quiet_text(rule.quiet), wide=True),
        Column("FAILURES", lambda rule, _: rule.failures, wide=True),
    ],
    lambda rule: rule.name,
)
HEARTBEAT: TableView[notification.HeartbeatState] = TableView(
    "heartbeat",
    [
        Column("PIPELINE", lambda heartbeat, _: heartbeat.pipeline, keep_whole=True),
        Column("URL", lambda heartbeat, _: heartbeat.url),
        Column("LAST", lambda heartbeat, _: heartbeat.last),
        Column("AGE", lambda heartbeat, now: relative(heartbeat.last_at, now), keep_whole=True),
        Column("PENDING", lambda heartbeat, _: heartbeat.waiting),
        Column("LAST ERROR", lambda heartbeat, _: heartbeat.last_error),
    ],
    lambda heartbeat: heartbeat.pipeline,
)
MESSAGE: TableView[notification.Message] = TableView(
    "message",
    [
        Column("CHANNEL", lambda message, _: message.channel, keep_whole=True),
        Column("EVENT", lambda message, _: message.event),
        Column("AGE", lambda message, now: relative(message.created_at, now), keep_whole=True),
        Column("STATE", lambda message, _: message_state(message)),
        Column("ABOUT", lambda message, _: message.about),
        Column("TRIES", lambda message, _: message.tries, wide=True),
        Column("LAST ERROR", lambda message, _: message.last_error),
    ],
    lambda message: message.id,
)


def quiet_text(quiet: notification.QuietHours | None) -> str | None:
    return None if quiet is None else f"{quiet.start}-{quiet.end} {quiet.timezone}"


def message_state(message: notification.Message) -> str:
    if message.delivered_at is not None:
        return "delivered"
    return "given up" if message.given_up else "waiting"


# Channels

ChannelArgument = Annotated[str, typer.Argument(help="Name of the channel.")]
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


@channel_app.command(
    "add",
    epilog=example(
        "maoctl alarm channel add phone ntfys://ntfy.example.org/alarms",
        "maoctl alarm channel add mail --url-file mail.url",
    ),
)
def add_channel(
    context: typer.Context, name: ChannelArgument, url: UrlArgument = None, url_file: UrlFileOption = None
) -> None:
    """Add a channel, by the URL of an Apprise service: mail, Slack, Matrix, ntfy and many others."""
    from mao_shared.models.notification import ChannelRequest

    request = records.build(ChannelRequest, {"name": name, "url": _read_url(url, url_file)})
    get_session(context).client.notifications.add_channel(request)
    say(f"channel/{name} added; try it: maoctl alarm channel test {name}")


@channel_app.command("get", epilog=example("maoctl alarm channel get"))
@channel_app.command("list", hidden=True)
def get_channel(
    context: typer.Context,
    name: Annotated[
        str | None, typer.Argument(help="Name of the channel [default: all].", show_default=False)
    ] = None,
    output: OutputOption = None,
) -> None:
    """Show the channels and their pending messages."""
    session = get_session(context, output)
    if name is None:
        session.show(CHANNEL, session.client.notifications.channels())
    else:
        session.show_one(CHANNEL, session.client.notifications.channel(name))


@channel_app.command("remove", epilog=example("maoctl alarm channel remove phone --yes"))
def remove_channel(context: typer.Context, name: ChannelArgument, yes: YesOption = False) -> None:
    """Remove a channel and its pending messages."""
    confirm(f"Remove channel {name}?", yes)
    get_session(context).client.notifications.remove_channel(name)
    say(f"channel/{name} removed")


@channel_app.command("test", epilog=example("maoctl alarm channel test phone"))
def test_channel(context: typer.Context, name: ChannelArgument) -> None:
    """Send a test message to a channel; exit code 1 if it is not accepted."""
    _report(f"channel/{name}", get_session(context).client.notifications.test_channel(name))


def _report(what: str, result: notification.SendResult) -> None:
    if not result.delivered:
        say(f"{what} did not accept the message: {result.error}")
        raise typer.Exit(ExitCode.FAILED)
    say(f"{what} accepted the message")


# Rules

RuleArgument = Annotated[str, typer.Argument(help="Name of the rule.")]


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
        list[str] | None, typer.Option(help="Channel to tell; repeat it [default: none, which mutes].")
    ] = None,
    kind: Annotated[
        list[str] | None, typer.Option(help="Kind of alarm, such as run-failed [default: all].")
    ] = None,
    pipeline: Annotated[list[str] | None, typer.Option(help="Pipeline [default: all].")] = None,
    dataset: Annotated[list[str] | None, typer.Option(help="Dataset [default: all].")] = None,
    reminder: Annotated[
        str | None, typer.Option(help="Remind after this time, like 12h [default: never].")
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


@rule_app.command("get", epilog=example("maoctl alarm rule get"))
@rule_app.command("list", hidden=True)
def get_rule(
    context: typer.Context,
    name: Annotated[
        str | None, typer.Argument(help="Name of the rule [default: all].", show_default=False)
    ] = None,
    output: OutputOption = None,
) -> None:
    """Show the rules, or one."""
    session = get_session(context, output)
    if name is None:
        session.show(RULE, session.client.notifications.rules())
    else:
        session.show_one(RULE, session.client.notifications.rule(name))


@rule_app.command("remove", epilog=example("maoctl alarm rule remove night --yes"))
def remove_rule(context: typer.Context, name: RuleArgument, yes: YesOption = False) -> None:
    """Remove a rule."""
    confirm(f"Remove rule {name}?", yes)
    get_session(context).client.notifications.remove_rule(name)
    say(f"rule/{name} removed")


# Heartbeats

PipelineArgument = Annotated[str, typer.Argument(help="Name of the pipeline.")]


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


@heartbeat_app.command("get", epilog=example("maoctl alarm heartbeat get"))
@heartbeat_app.command("list", hidden=True)
def get_heartbeat(
    context: typer.Context,
    pipeline: Annotated[
        str | None, typer.Argument(help="Name of the pipeline [default: all].", show_default=False)
    ] = None,
    output: OutputOption = None,
) -> None:
    """Show the heartbeats and their newest pings."""
    session = get_session(context, output)
    if pipeline is None:
        session.show(HEARTBEAT, session.client.notifications.heartbeats())
    else:
        session.show_one(HEARTBEAT, session.client.notifications.heartbeat(pipeline))


@heartbeat_app.command("remove", epilog=example("maoctl alarm heartbeat remove crawl --yes"))
def remove_heartbeat(context: typer.Context, pipeline: PipelineArgument, yes: YesOption = False) -> None:
    """Stop pinging about a pipeline."""
    confirm(f"Remove the heartbeat of {pipeline}?", yes)
    get_session(context).client.notifications.remove_heartbeat(pipeline)
    say(f"heartbeat/{pipeline} removed")


@heartbeat_app.command("test", epilog=example("maoctl alarm heartbeat test crawl"))
def test_heartbeat(context: typer.Context, pipeline: PipelineArgument) -> None:
    """Ping the address itself now, as for a success; exit code 1 if it is not accepted."""
    _report(f"heartbeat/{pipeline}", get_session(context).client.notifications.test_heartbeat(pipeline))


# Messages


def get_messages(
    context: typer.Context,
    channel: Annotated[
        str | None, typer.Option(help="Only those to this channel or heartbeat.", show_default=False)
    ] = None,
    about: Annotated[
        str | None, typer.Option(help="Only those about this alarm or run.", show_default=False)
    ] = None,
    output: OutputOption = None,
) -> None:
    """Show the messages to channels and the pings of heartbeats, delivered or not."""
    session = get_session(context, output)
    session.show(MESSAGE, session.client.notifications.messages(channel, about))


def add_to(app: typer.Typer) -> None:
    """Add the commands to `maoctl alarm`."""
    app.add_typer(channel_app, name="channel")
    app.add_typer(rule_app, name="rule")
    app.add_typer(heartbeat_app, name="heartbeat")
    app.command("messages", epilog=example("maoctl alarm messages", "maoctl alarm messages --channel phone"))(
        get_messages
    )
