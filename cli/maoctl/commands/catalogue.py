"""`maoctl catalogue`: find pipelines, tools and datasets of others, and install them."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mao_shared.errors import InvalidInput, MaoError
from maoctl import records
from maoctl.arguments import parse_pairs, strip_kind
from maoctl.exits import CommandError, ExitCode, report_error
from maoctl.lookup import did_you_mean
from maoctl.output import Format, print_facts, print_records, say
from maoctl.progress import working
from maoctl.session import CliSession, OutputOption, example, get_session
from maoctl.tree import App
from maoctl.views.catalogue import ENTRY, ITEM, SOURCE

from .pipeline import AgreeOption

if TYPE_CHECKING:
    from mao_shared.models.catalogue import CatalogueContent, CatalogueEntry, InstallItem, InstallRequest

app = App(help="Pipelines, tools and datasets that others describe.")


class Kind(StrEnum):
    PIPELINES = "pipelines"
    TOOLS = "tools"
    DATASETS = "datasets"
    FEDERATIONS = "federations"


KindOption = Annotated[Kind, typer.Option(help="Kind of entries.")]
FromOption = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="FILE|FOLDER|URL",
        help="Catalogue to read here and send to the node, in place of the configured ones.",
        show_default=False,
    ),
]
SourceOption = Annotated[
    str | None, typer.Option(help="Name of a configured catalogue [default: all].", show_default=False)
]


@app.command("sources", lists=True, watched=False, epilog=example("maoctl catalogue sources"))
def list_sources(context: typer.Context, output: OutputOption = None) -> None:
    """List the catalogues that are configured on the node (MAO_CATALOGUES)."""
    session = get_session(context, output)
    session.show(SOURCE, session.client.catalogue.sources())


@app.command(
    "list",
    lists=True,
    watched=False,
    epilog=example(
        "maoctl catalogue list docker hub", "maoctl catalogue list --kind tools --from catalogue.json"
    ),
)
def list_entries(
    context: typer.Context,
    words: Annotated[
        list[str] | None, typer.Argument(help="Words that the entries have.", show_default=False)
    ] = None,
    kind: KindOption = Kind.PIPELINES,
    source: SourceOption = None,
    from_: FromOption = None,
    output: OutputOption = None,
) -> None:
    """List entries and what is missing on this node to install them."""
    from mao_shared.models.catalogue import CatalogueSearch

    session = get_session(context, output)
    content = _read(from_, source)
    q = " ".join(words or [])
    if content is not None:
        search = records.build(CatalogueSearch, {"catalogue": content, "kind": kind.value, "q": q})
        session.show(ENTRY, session.client.catalogue.search(search))
        return
    found = list(session.client.catalogue.list(kind=kind.value, q=q, source=source))
    session.show(ENTRY, found)
    if not found and not session.client.catalogue.sources():
        say("No catalogue is configured on the node (MAO_CATALOGUES); give one with --from.")


def _read(address: str | None, source: str | None) -> CatalogueContent | None:
    """Return the content of the catalogue that --from names. Raises MaoError, BadParameter."""
    if address is None:
        return None
    if source is not None:
        raise typer.BadParameter("--from and --source cannot be combined")
    import asyncio

    from mao_shared.clients.catalogue import parse_location, parse_parts, read_parts

    try:
        location = parse_location(address)
    except ValueError as error:
        raise typer.BadParameter(f"invalid value {address!r}: {error}", param_hint="--from") from error
    return parse_parts(asyncio.run(read_parts(location)))


@app.command(epilog=example("maoctl catalogue show 'DockerHub Collector'"))
def show(
    context: typer.Context,
    name: Annotated[
        str, typer.Argument(help="Name or title of the entry.", callback=strip_kind("catalogue-entry"))
    ],
    kind: KindOption = Kind.PIPELINES,
    source: SourceOption = None,
    from_: FromOption = None,
    output: OutputOption = None,
) -> None:
    """Show an entry: what it would register here, and what is missing."""
    session = get_session(context, output)
    content = _read(from_, source)
    with did_you_mean((name, lambda: _names(session, kind, source, content))):
        if content is None:
            entry = session.client.catalogue.get(kind.value, name, source)
        else:
            entry = _find(session, kind, name, content)
    if not session.output.for_people:
        session.show_one(ENTRY, entry)
        return
    facts = [
        ("name", entry.name),
        ("title", entry.title or ""),
        ("description", entry.description),
        ("source", entry.source),
        ("state", entry.state),
        ("contacts", ", ".join(entry.contacts)),
        ("proposed cron", " ".join(filter(None, [entry.cron, entry.timezone]))),
    ]
    print_facts(facts)
    _print_items(session, entry)


def _find(session: CliSession, kind: Kind, name: str, content: CatalogueContent) -> CatalogueEntry:
    from mao_shared.models.catalogue import CatalogueSearch, InstallRequest

    if kind is not Kind.FEDERATIONS:
        fields = {"name": name, "kind": kind.value, "catalogue": content}
        return session.client.catalogue.plan(records.build(InstallRequest, fields))
    search = CatalogueSearch(catalogue=content, kind="federations")
    found = (entry for entry in session.client.catalogue.search(search) if name in (entry.name, entry.title))
    for entry in found:
        return entry
    raise CommandError(
        ExitCode.NOT_FOUND,
        f"The catalogue has no federation {name!r}.",
        "List them: maoctl catalogue list --kind federations",
    )


def _names(
    session: CliSession, kind: Kind, source: str | None, content: CatalogueContent | None
) -> list[str]:
    """Return the names and titles of the entries, to suggest similar ones."""
    return [
        name for entry in _all(session, kind, source, content) for name in (entry.name, entry.title) if name
    ]


def _all(
    session: CliSession, kind: Kind, source: str | None, content: CatalogueContent | None
) -> Iterator[CatalogueEntry]:
    from mao_shared.models.catalogue import CatalogueSearch

    if content is None:
        return session.client.catalogue.list(kind=kind.value, source=source)
    return session.client.catalogue.search(CatalogueSearch(catalogue=content, kind=kind.value))


def _print_items(session: CliSession, entry: CatalogueEntry) -> None:
    """Print the items as a table, and faults, notes and what to give on stderr."""
    if entry.items:
        print_records(ITEM, entry.items, Format.TABLE, session.now)
    for fault in entry.faults:
        say(f"error: {fault}")
    for note in entry.notes:
        say(f"note: {note}")
    for step in _steps(entry.items):
        say(f"next: {step}")
    if entry.kind == "federations":
        say("next: Ask a contact for an invitation, then: maoctl federation join - < FILE")


def _steps(items: Iterable[InstallItem]) -> list[str]:
    return list(dict.fromkeys(item.next for item in items if item.next))


# Installing


@app.command(
    epilog=example(
        "maoctl catalogue install 'DockerHub Collector' --local",
        "maoctl catalogue install collector --dataset raw=git@git.example.org:mao/raw.git \\",
        "    --cron '30 2 * * *' --timezone Europe/Zurich",
        "maoctl catalogue install --all --local --from catalogue.json --dry-run",
    )
)
def install(
    context: typer.Context,
    names: Annotated[
        list[str] | None, typer.Argument(help="Names or titles of entries.", show_default=False)
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Install all entries of the kind.")] = False,
    kind: KindOption = Kind.PIPELINES,
    dataset: Annotated[
        list[str] | None,
        typer.Option(
            "--dataset",
            metavar="NAME=URL",
            help="Remote of a dataset that is missing; may be repeated.",
            show_default=False,
        ),
    ] = None,
    remote: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Remote of the other missing datasets, with {name} in place of their name.",
            show_default=False,
        ),
    ] = None,
    local: Annotated[
        bool, typer.Option("--local", help="Make the other missing datasets on the node.")
    ] = False,
    image: Annotated[
        list[str] | None,
        typer.Option(
            "--image",
            metavar="TOOL=IMAGE",
            help="Image of a tool that is missing, in place of the catalogue's; may be repeated.",
            show_default=False,
        ),
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep registered records that differ.")] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace registered tools and pipelines that differ.")
    ] = False,
    agree: AgreeOption = None,
    cron: Annotated[str | None, typer.Option(help="Also schedule the pipelines.", show_default=False)] = None,
    timezone: Annotated[
        str | None, typer.Option(help="Time zone of --cron [default: UTC].", show_default=False)
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be done.")] = False,
    source: SourceOption = None,
    from_: FromOption = None,
    output: OutputOption = None,
) -> None:
    """Register what an entry needs, and enrol this node in its pipeline; installs all of it or nothing."""
    session = get_session(context, output)
    if bool(names) == everything:
        raise typer.BadParameter("give names of entries, or --all")
    if keep and replace:
        raise typer.BadParameter("--keep and --replace cannot be combined")
    if kind is Kind.FEDERATIONS:
        raise typer.BadParameter("a federation is joined by invitation: maoctl federation join")
    if timezone is not None and cron is None:
        raise typer.BadParameter("--timezone requires --cron")
    content = _read(from_, source)
    choices: dict[str, Any] = {
        "datasets": parse_pairs(dataset or [], "--dataset"),
        "images": parse_pairs(image or [], "--image"),
        "local": local,
        "existing": "keep" if keep else "replace" if replace else "refuse",
        "agree": agree or [],
    }
    base = choices | records.given(kind=kind.value, source=source, catalogue=content)
    strip = strip_kind(ENTRY.kind)
    wanted = [str(strip(name)) for name in names or []] or [
        entry.title or entry.name for entry in _all(session, kind, source, content)
    ]
    done: list[CatalogueEntry] = []
    worst: int = ExitCode.OK
    for name in wanted:
        try:
            with did_you_mean((name, lambda: _names(session, kind, source, content))):
                entry = _install(session, base | {"name": name}, remote, cron, dry_run=dry_run)
            done.append(entry)
            worst = max(worst, ExitCode.FAILED if dry_run and _is_blocked(entry) else ExitCode.OK)
            if cron is not None and not dry_run and kind is Kind.PIPELINES:
                _schedule(session, entry.name, cron, timezone)
        except (MaoError, CommandError) as error:
            if len(wanted) == 1:
                raise
            worst = max(worst, report_error(error))
    if not session.output.for_people:
        _print_done(session, done)
    if worst != ExitCode.OK:
        raise CommandError(ExitCode.FAILED if len(wanted) > 1 else ExitCode(worst))


def _print_done(session: CliSession, done: Sequence[CatalogueEntry]) -> None:
    if len(done) == 1:
        session.show_one(ENTRY, done[0])
    else:
        session.show(ENTRY, done)


def _is_blocked(entry: CatalogueEntry) -> bool:
    return bool(entry.faults) or any(item.blocks for item in entry.items)


def _install(
    session: CliSession, fields: dict[str, Any], remote: str | None, cron: str | None, *, dry_run: bool
) -> CatalogueEntry:
    """Plan, ask on a terminal for what is missing, and install; `cron`: how it is scheduled afterwards.

    Raises InvalidInput, CommandError.
    """
    from mao_shared.models.catalogue import InstallRequest

    request = records.build(InstallRequest, fields)
    planned = session.client.catalogue.plan(request)
    request, planned = _give_remotes(session, request, planned, remote)
    if not dry_run and sys.stdin.isatty():
        request, planned = _ask(session, request, planned)
    if dry_run:
        if session.output.for_people:
            say(f"{_record(planned)} {planned.state} (dry run)")
            _print_items(session, planned)
        return planned
    if _is_blocked(planned):
        raise _not_installed(planned)
    with working("Pulling the images"):
        installed = session.client.catalogue.install(
            request.model_copy(update=records.given(digest=planned.digest))
        )
    for item in installed.items:
        if item.kind in ("tool", "dataset", "pipeline"):
            say(f"{item.kind}/{item.name} {item.state}")
    for note in installed.notes:
        say(f"note: {note}")
    say(f"{_record(installed)} installed")
    if installed.kind == "pipelines" and cron is None:
        say(f"next: maoctl pipeline run {installed.name} {_proposed(installed)}")
    return installed


def _proposed(entry: CatalogueEntry) -> str:
    """Return the options that schedule a pipeline as its entry proposes."""
    if not entry.cron:
        return "--wait"
    zone = f" --timezone {shlex.quote(entry.timezone)}" if entry.timezone else ""
    return f"--cron {shlex.quote(entry.cron)}{zone}"


def _record(entry: CatalogueEntry) -> str:
    """Return `kind/name` of the record that an entry becomes."""
    return f"{entry.kind.removesuffix('s')}/{entry.name}"


def _not_installed(entry: CatalogueEntry) -> InvalidInput:
    """Return the error that lists all that is missing, and what to pass for it."""
    items = [item for item in entry.items if item.blocks]
    lines = entry.faults + [f"{item.kind} {item.name} {item.state}: {item.detail}" for item in items]
    listed = "".join(f"\n  {line}" for line in lines)
    steps = "\n      ".join(_steps(items)) or "Choose another entry, or ask who publishes it."
    return InvalidInput(
        f"Nothing of {entry.called!r} was installed:{listed}", code="catalogue-incomplete", next=steps
    )


def _give_remotes(
    session: CliSession, request: InstallRequest, planned: CatalogueEntry, remote: str | None
) -> tuple[InstallRequest, CatalogueEntry]:
    """Fill in the remotes of the missing datasets by the pattern of --remote."""
    missing = [item.name for item in planned.items if item.kind == "dataset" and item.state == "missing"]
    if remote is None or not missing:
        return request, planned
    if "{name}" not in remote:
        raise typer.BadParameter("write {name} where the dataset's name goes", param_hint="--remote")
    given = {name: remote.replace("{name}", name) for name in missing}
    return _again(session, request, datasets={**request.datasets, **given})


def _again(
    session: CliSession, request: InstallRequest, **given: Any
) -> tuple[InstallRequest, CatalogueEntry]:
    fields = request.model_dump(mode="json", exclude_unset=True) | given
    changed = records.build(type(request), fields)
    return changed, session.client.catalogue.plan(changed)


def _ask(
    session: CliSession, request: InstallRequest, planned: CatalogueEntry
) -> tuple[InstallRequest, CatalogueEntry]:
    """Ask on the terminal for each thing that can be given."""
    given: dict[str, Any] = {}
    if planned.state == "unusable":
        return request, planned
    for item in planned.items:
        if item.kind == "dataset" and item.state == "missing":
            question = f"Remote of the dataset {item.name} (empty: made on the node)"
            if answer := typer.prompt(question, default="", show_default=False, err=True).strip():
                given.setdefault("datasets", dict(request.datasets))[item.name] = answer
            else:
                given["local"] = True
        elif item.kind == "tool" and item.state == "missing":
            answer = typer.prompt(f"Image of the tool {item.name}", err=True).strip()
            given.setdefault("images", dict(request.images))[item.name] = answer
        elif item.kind == "secret" and item.state == "missing":
            value = typer.prompt(f"Secret {item.name}, {item.detail}", hide_input=True, err=True)
            session.client.secrets.set(item.name, value)
            given.setdefault("agree", list(request.agree)).append(f"secret {item.name}")
        elif item.kind == "privilege" and item.state == "missing" and item.name not in given.get("agree", ()):
            if typer.confirm(f"{item.detail}. Grant it on this node?", err=True):
                given.setdefault("agree", list(request.agree)).append(item.name)
        elif item.state == "differs":
            say(f"{item.kind}/{item.name} {item.detail}: {'; '.join(item.changes)}")
            if typer.confirm("Use it as it is registered?", err=True):
                given["existing"] = "keep"
    return _again(session, request, **given) if given else (request, planned)


def _schedule(session: CliSession, name: str, cron: str, timezone: str | None) -> None:
    from mao_shared.models.schedule import ScheduleRequest

    request = records.build(ScheduleRequest, records.given(name=name, cron=cron, timezone=timezone))
    schedule = session.client.pipelines.schedule(request)
    say(f"job/{schedule.id} scheduled")
