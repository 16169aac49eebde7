"""`maoctl top`: the load of this node and what runs on it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import chain
from typing import TYPE_CHECKING

import typer

from mao_shared.errors import MaoError
from mao_shared.states import RunPhase
from maoctl.output import Column, Document, TableView, say, with_kind, write
from maoctl.session import CliSession, OutputOption, example, get_session
from maoctl.text import size
from maoctl.tree import App
from maoctl.views.runs import ACTIVE_RUN

if TYPE_CHECKING:
    from mao_shared.models import Run


@dataclass(frozen=True)
class Load:
    """A node's load. Sizes in bytes; None where the node does not tell."""

    node: str
    slots: int | None
    slots_used: int | None
    cpus: int | None
    memory: int | None
    disk_free: int | None
    disk_total: int | None
    running: int
    queued: int
    problems: int

    def document(self) -> Document:
        return asdict(self)


def _share(used: int | None, total: int | None) -> str:
    return "" if total is None else f"{'?' if used is None else used}/{total}"


def _disk(load: Load, _now: datetime) -> str:
    if load.disk_free is None or not load.disk_total:
        return ""
    return f"{size(load.disk_free)} free ({100 * load.disk_free // load.disk_total} %)"


LOAD: TableView[Load] = TableView(
    "load",
    [
        Column("NODE", lambda load, _: load.node, keep_whole=True),
        Column("SLOTS", lambda load, _: _share(load.slots_used, load.slots)),
        Column("RUNNING", lambda load, _: load.running),
        Column("QUEUED", lambda load, _: load.queued),
        Column("CPUS", lambda load, _: load.cpus, spare=2),
        Column("MEMORY", lambda load, _: size(load.memory), sort=lambda load: load.memory, spare=1),
        Column("DISK", _disk, sort=lambda load: load.disk_free),
        Column("PROBLEMS", lambda load, _: load.problems),
    ],
    lambda load: load.node,
)


def measure(session: CliSession) -> tuple[Load, list[Run]]:
    """Return the load of the node and its runs that have not ended, the newest first."""
    client = session.client
    status = client.status()
    try:
        engine = client.engine()
    except MaoError as error:
        say(f"The engine's load is not known: {error.detail}")
        engine = None
    phases = (RunPhase.RUNNING, RunPhase.QUEUED)
    active = {phase: list(client.runs.list(phase=phase)) for phase in phases}
    disk = status.disk
    load = Load(
        node=status.node,
        slots=engine.slots if engine else None,
        slots_used=engine.running if engine else None,
        cpus=engine.cpus if engine else None,
        memory=engine.memory if engine else None,
        disk_free=disk.free if disk else None,
        disk_total=disk.total if disk else None,
        running=len(active[RunPhase.RUNNING]),
        queued=len(active[RunPhase.QUEUED]),
        problems=len(status.conditions),
    )
    return load, list(chain.from_iterable(active.values()))


def top(context: typer.Context, output: OutputOption = None) -> None:
    """Show the load of this node: slots, memory, disk, and the runs that have not ended."""
    session = get_session(context, output)
    load, runs = measure(session)
    if not session.output.for_people:
        document = load.document() | {"runs": [run.id for run in runs]}
        session.data(with_kind(LOAD.kind, document), lambda: session.show_one(LOAD, load))
        return
    session.show_one(LOAD, load)
    if runs:
        write("\n")
        session.show(ACTIVE_RUN, runs)


def add_to(app: App) -> None:
    """Add the command to the root."""
    app.command(epilog=example("maoctl top", "maoctl top -o json"))(top)
