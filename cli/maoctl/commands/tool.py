"""`maoctl tool`: register container images, and check their compliance."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mao_shared.errors import MaoError, NotFound
from maoctl import records
from maoctl.arguments import AnyTool, ToolArgument, duration_option, parse_pairs
from maoctl.exits import CommandError, ExitCode
from maoctl.output import Format, print_records, say
from maoctl.progress import working
from maoctl.session import CliSession, OutputOption, YesOption, example, get_session
from maoctl.tree import App
from maoctl.views.registry import TOOL
from maoctl.views.runs import CHECK, CheckRow

if TYPE_CHECKING:
    from mao_shared.models.tool import CheckReport

app = App(help="Container images that collect observations.")

CommandOption = Annotated[
    str | None,
    typer.Option("--command", help="Override the image's command; one quoted string.", show_default=False),
]
EnvOption = Annotated[
    list[str] | None,
    typer.Option(
        "--env",
        "-e",
        metavar="NAME=VALUE",
        help="Environment variable; may be repeated.",
        show_default=False,
    ),
]
EnvChangeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--env",
        "-e",
        metavar="NAME=VALUE",
        help="Environment variable; NAME- removes one; may be repeated.",
        show_default=False,
    ),
]
CapDropOption = Annotated[
    list[str] | None,
    typer.Option(
        "--cap-drop", help="Remove a capability added by --cap-add; ALL for all.", show_default=False
    ),
]
CpuOption = Annotated[float | None, typer.Option(help="Limit of CPU cores.", show_default=False)]
MemoryOption = Annotated[
    str | None, typer.Option(help="Limit of memory, like 512m or 2g.", show_default=False)
]
PidsOption = Annotated[int | None, typer.Option(help="Limit of processes.", show_default=False)]
TimeOption = Annotated[
    str | None, typer.Option(help="Limit of the run time, like 90s or 2h.", show_default=False)
]
GraceOption = Annotated[
    str | None, typer.Option(help="Time between SIGTERM and SIGKILL, like 10s.", show_default=False)
]
NetworkOption = Annotated[str | None, typer.Option(help="Network: none | bridge | host", show_default=False)]
DescriptionOption = Annotated[str | None, typer.Option(help="Description of the tool.", show_default=False)]
UserOption = Annotated[
    str | None, typer.Option(help="Run as this user; operators must agree.", show_default=False)
]
CapOption = Annotated[
    list[str] | None,
    typer.Option("--cap-add", help="Linux capability; operators must agree.", show_default=False),
]
NewPrivilegesOption = Annotated[
    bool | None,
    typer.Option("--new-privileges", help="Allow setuid programs; operators must agree.", show_default=False),
]


DockerSocketOption = Annotated[
    bool | None,
    typer.Option(
        "--docker-socket/--no-docker-socket",
        help="Mount the engine's socket, which gives root on the host; operators must agree.",
        show_default=False,
    ),
]
SecretOption = Annotated[
    list[str] | None,
    typer.Option(
        "--secret",
        metavar="[VARIABLE=]NAME",
        help="Secret of each node, in a variable or in /run/secrets/NAME; operators must agree.",
        show_default=False,
    ),
]
SecretDropOption = Annotated[
    list[str] | None,
    typer.Option("--drop-secret", help="Remove a secret added by --secret.", show_default=False),
]


def merged(record: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return a record with changes applied; maps are merged, everything else is replaced."""
    result = dict(record)
    for key, value in changes.items():
        old = result.get(key)
        result[key] = merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result


def tool_fields(
    command: str | None,
    env: list[str] | None,
    limits: dict[str, Any],
    network: str | None,
    description: str | None,
    privileges: dict[str, Any],
    named_secrets: list[str] | None,
) -> dict[str, Any]:
    """Return the fields of a tool's record that are set by options."""
    pairs = parse_pairs(env, "--env") if env else None
    fields = records.given(command=command, env=pairs, network=network, description=description)
    if named_secrets:
        parts = [text.rpartition("=") for text in named_secrets]
        fields["secrets"] = [records.given(secret=name, env=variable or None) for variable, _, name in parts]
    return (
        fields | ({"limits": limits} if limits else {}) | ({"privileges": privileges} if privileges else {})
    )


@app.command(
    epilog=example(
        "maoctl tool add crawler 'A. Scientist' lab/crawler:1.4 \\",
        "    https://example.org/data https://example.org/code docker-hub --memory 512m",
    )
)
def add(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of the tool.")],
    author: Annotated[str, typer.Argument(help="Author.")],
    image: Annotated[str, typer.Argument(help="Container image.")],
    data_repo: Annotated[str, typer.Argument(help="URL of the published data.", show_default=False)] = "",
    code_repo: Annotated[str, typer.Argument(help="URL of the code.", show_default=False)] = "",
    artefact: Annotated[
        str, typer.Argument(help="Kind of artefacts that it observes.", show_default=False)
    ] = "",
    command: CommandOption = None,
    env: EnvOption = None,
    cpu: CpuOption = None,
    memory: MemoryOption = None,
    pids: PidsOption = None,
    time: TimeOption = None,
    grace: GraceOption = None,
    network: NetworkOption = None,
    description: DescriptionOption = None,
    user: UserOption = None,
    cap_add: CapOption = None,
    new_privileges: NewPrivilegesOption = None,
    docker_socket: DockerSocketOption = None,
    secret: SecretOption = None,
    output: OutputOption = None,
) -> None:
    """Register a tool."""
    from mao_shared.models import Tool

    session = get_session(context, output)
    limits = records.given(cpu=cpu, memory=memory, pids=pids, time=time, grace=grace)
    privileges = records.given(
        user=user, capabilities=cap_add, new_privileges=new_privileges, docker_socket=docker_socket
    )
    fields = tool_fields(command, env, limits, network, description, privileges, secret)
    fields |= {"name": name, "author": author, "image": image}
    fields |= {"data_repo": data_repo, "code_repo": code_repo, "artefact": artefact}
    made = session.client.tools.create(records.build(Tool, fields), idempotency_key=secrets.token_hex(16))
    session.done(TOOL, made.record, "added")
    records.warn_of_secrets(f"tool {name}", made.record.env)


@app.command("get", lists=True, epilog=example("maoctl tool get", "maoctl tool get crawler -o yaml"))
def get(context: typer.Context, name: AnyTool = None, output: OutputOption = None) -> None:
    """Show one tool, or all."""
    session = get_session(context, output)
    records.get(session, session.client.tools, TOOL, name)


@app.command(epilog=example("maoctl tool show crawler"))
def show(context: typer.Context, name: ToolArgument, output: OutputOption = None) -> None:
    """Show the details of a tool."""
    session = get_session(context, output)
    records.show(session, session.client.tools, TOOL, name)


@app.command(epilog=example("maoctl tool remove crawler --yes"))
def remove(context: typer.Context, name: ToolArgument, yes: YesOption = False) -> None:
    """Remove a tool that no pipeline uses."""
    session = get_session(context)
    records.remove(session, session.client.tools, TOOL, name, yes)


@app.command("update", epilog=example("maoctl tool update crawler --image lab/crawler:1.5 --time 2h"))
@app.command("set", hidden=True)
def update(
    context: typer.Context,
    name: ToolArgument,
    author: Annotated[str | None, typer.Option(help="Author.", show_default=False)] = None,
    image: Annotated[str | None, typer.Option(help="Container image.", show_default=False)] = None,
    data_repo: Annotated[
        str | None, typer.Option(help="URL of the published data.", show_default=False)
    ] = None,
    code_repo: Annotated[str | None, typer.Option(help="URL of the code.", show_default=False)] = None,
    artefact: Annotated[
        str | None, typer.Option(help="Kind of artefacts that it observes.", show_default=False)
    ] = None,
    command: CommandOption = None,
    env: EnvChangeOption = None,
    cpu: CpuOption = None,
    memory: MemoryOption = None,
    pids: PidsOption = None,
    time: TimeOption = None,
    grace: GraceOption = None,
    network: NetworkOption = None,
    description: DescriptionOption = None,
    user: UserOption = None,
    cap_add: CapOption = None,
    cap_drop: CapDropOption = None,
    new_privileges: NewPrivilegesOption = None,
    docker_socket: DockerSocketOption = None,
    secret: SecretOption = None,
    drop_secret: SecretDropOption = None,
    output: OutputOption = None,
) -> None:
    """Change the given fields of a tool. Enrolled nodes use it when they renew their enrolment."""
    limits = records.given(cpu=cpu, memory=memory, pids=pids, time=time, grace=grace)
    privileges = records.given(
        user=user, capabilities=cap_add, new_privileges=new_privileges, docker_socket=docker_socket
    )
    removals = [item for item in env or [] if "=" not in item and len(item) > 1 and item.endswith("-")]
    kept = [item for item in env or [] if item not in removals]
    removed = [item.removesuffix("-") for item in removals]
    changes = tool_fields(command, kept or None, limits, network, description, privileges, secret)
    given = changes.pop("secrets", [])
    changes |= records.given(
        author=author, image=image, data_repo=data_repo, code_repo=code_repo, artefact=artefact
    )
    session = get_session(context, output)
    tools = session.client.tools

    def edit(old: dict[str, Any]) -> dict[str, Any]:
        refs = [ref for ref in old.get("secrets", []) if ref["secret"] not in (drop_secret or [])]
        refs = list({ref.get("env") or f"/{ref['secret']}": ref for ref in [*refs, *given]}.values())
        with_secrets = merged(old, changes) | ({"secrets": refs} if "secrets" in old or refs else {})
        return _without(with_secrets, removed, cap_drop or [])

    if not records.change(session, tools, TOOL, name, edit):
        return
    try:
        pipelines = list(session.client.pipelines.list())
    except MaoError:  # the tool was changed; only the hint is missing
        return
    users = [pipeline.name for pipeline in pipelines if any(step.tool == name for step in pipeline.steps)]
    if users:
        say("Enrolled nodes still run the tool that they pinned.")
        say("next: " + "\n      ".join(f"maoctl pipeline approve {pipeline}" for pipeline in users))


def _without(record: dict[str, Any], env: list[str], capabilities: list[str]) -> dict[str, Any]:
    """Return a tool's record without these variables and capabilities."""
    dropped = {name.upper().removeprefix("CAP_") for name in capabilities}
    privileges = record["privileges"]
    added = [name.upper().removeprefix("CAP_") for name in privileges["capabilities"] if name]
    left = [name for name in added if not dropped & {name, "ALL"}]
    kept = {name: value for name, value in record["env"].items() if name not in env}
    return record | {"env": kept, "privileges": privileges | {"capabilities": left}}


@app.command(epilog=example("maoctl tool check lab/crawler:1.4"))
def check(
    context: typer.Context,
    image: Annotated[str, typer.Argument(help="Container image, or the name of a registered tool.")],
    command: CommandOption = None,
    env: EnvOption = None,
    user: UserOption = None,
    network: NetworkOption = None,
    cap_add: CapOption = None,
    new_privileges: NewPrivilegesOption = None,
    input_: Annotated[
        list[Path] | None,
        typer.Option(
            "--input",
            help="Text file to copy to /usr/src/app/input; may be repeated.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    time: Annotated[
        float | None, duration_option("Longest run, like 90s or 2h.", "--time", "--timeout")
    ] = None,
    once: Annotated[
        bool,
        typer.Option("--once", help="Run only once, without the check for writes outside the data folder."),
    ] = False,
    output: OutputOption = None,
) -> None:
    """Check whether an image complies: it runs unattended, ends, and writes only its data.

    A second run, as root of a separate container, shows what it tries to write elsewhere.
    """
    from mao_shared.models.tool import CheckRequest

    session = get_session(context, output)
    privileges = records.given(user=user, capabilities=cap_add, new_privileges=new_privileges)
    fields = records.given(
        command=command,
        env=parse_pairs(env, "--env") if env else None,
        network=network,
        privileges=privileges or None,
        once=once or None,
        input={path.name: _read_text(path) for path in input_} if input_ else None,
        timeout=time,
    )
    registered = _registered(session, image)
    if registered:
        image = registered.pop("image")
        say(f"checking the image of the registered tool: {image}")
    request = records.build(CheckRequest, merged(registered, fields) | {"image": image})
    with working(f"Checking {image}", session):
        report = session.client.tools.check(request)
    session.data(report, lambda: _print_report(session, report))
    if report.compliant:
        return
    failed = [finding for finding in report.findings if not finding.ok]
    if [finding.name for finding in failed] == ["image"]:
        raise CommandError(ExitCode.FAILED, f"{image} cannot be run.", failed[0].advice)
    raise CommandError(
        ExitCode.FAILED, f"{image} does not comply.", "Read the rules for tools in examples/tools/README.md."
    )


def _registered(session: CliSession, name: str) -> dict[str, Any]:
    """Return the fields of a check for a registered tool; empty if there is no such tool."""
    from mao_shared.models import is_name

    if not is_name(name):
        return {}
    try:
        tool = session.client.tools.get(name).record
    except NotFound:
        return {}
    wanted = tool.model_dump(mode="json", include={"image", "command", "env", "network"}, exclude_none=True)
    asked = tool.privileges.model_dump(mode="json", exclude_defaults=True)
    asked.pop("docker_socket", None)  # never mounted in a check
    return wanted | ({"privileges": asked} if asked else {})


def _read_text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{path} cannot be read as text: {error}", param_hint="--input") from error


def _print_report(session: CliSession, report: CheckReport) -> None:
    """Print the findings as a table, and the tool's output on stderr."""
    rows = []
    for finding in report.findings:
        state = ("hint" if finding.advice else "ok") if finding.ok else "failed"
        rows.append(CheckRow(finding.name, state, finding.detail, finding.advice or ""))
    print_records(CHECK, rows, Format.TABLE, session.now)
    if report.log:
        say(f"Output of the tool:\n{report.log}")
