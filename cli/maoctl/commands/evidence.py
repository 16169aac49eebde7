"""`maoctl run export` and `run verify`: a run to take away, and whether it is as recorded."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from maoctl import views
from maoctl.arguments import RunArgument
from maoctl.exits import CommandError, ExitCode
from maoctl.output import say, write
from maoctl.session import CliSession, OutputOption, example, session_of
from maoctl.text import harmless_line

CrateFile = Annotated[
    Path | None,
    typer.Option(
        "--crate", exists=True, dir_okay=False, help="Check this crate as well.", show_default=False
    ),
]


def add_to(app: typer.Typer) -> None:
    """Adds the verbs to `maoctl run`."""
    app.command(epilog=example("maoctl run export 1f3a5c7d -o crate.zip"))(export)
    app.command(epilog=example("maoctl run verify 1f3a5c7d", "maoctl run verify 1f3a5c7d --crate crate.zip"))(
        verify
    )


def export(
    context: typer.Context,
    run: RunArgument,
    out: Annotated[Path, typer.Option("--out", "-o", help="The zip file to write.")],
    data: Annotated[bool, typer.Option("--data/--no-data", help="With inputs and outputs.")] = True,
) -> None:
    """Write a run as an RO-Crate: inputs, outputs, logs and how they came about, for anybody to read."""
    session = session_of(context)
    partial = out.with_name(f".{out.name}.part")
    try:
        with partial.open("wb") as file:
            size = session.client.crate(_run_id(session, run), file, data=data)
        partial.replace(out)
    except OSError as error:
        raise CommandError(
            ExitCode.FAILED,
            f"The crate cannot be written: {out}: {error.strerror}.",
            "Name another: --out FILE.",
        ) from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
    say(f"{out}: {size} bytes")


def verify(
    context: typer.Context, run: RunArgument, crate: CrateFile = None, output: OutputOption = None
) -> None:
    """Read every byte of a run's snapshots and logs again: 0 if all is as recorded, 1 if not."""
    from maoctl.crate_check import crate_faults

    session = session_of(context)
    run_id = _run_id(session, run)
    report = session.client.verify_run(run_id)
    lines = [_line(fault) for fault in report["faults"]]
    if crate is not None:
        lines += [harmless_line(each) for each in crate_faults(crate, session.client.crate_metadata(run_id))]
    how = output or session.output
    if not how.for_people:
        session.show_one(views.VERIFICATION, {**report, "ok": not lines}, how)
    else:
        write("".join(f"{line}\n" for line in lines))
    for each in report["unchecked"]:
        say(f"not checked: {harmless_line(each)}")
    if lines:
        raise CommandError(
            ExitCode.FAILED, f"First difference: {lines[0]}", f"The record: maoctl run show {run_id}"
        )
    say(f"run/{run_id} is as recorded: {report['files']} files, {report['bytes']} bytes")


def _line(fault: dict[str, Any]) -> str:
    where = f"{fault['step']} {fault['what']}" + (f" {fault['path']}" if fault["path"] else "")
    return harmless_line(f"{where}: {fault['detail']}")


def _run_id(session: CliSession, run: str) -> str:
    """The whole id; what is not in the store any more is taken as it is typed."""
    from mao_shared.errors import NotFound
    from maoctl.lookup import find_run

    try:
        return find_run(session.client, run).id
    except (NotFound, CommandError) as error:
        if isinstance(error, CommandError) and error.code is not ExitCode.NOT_FOUND:
            raise
        return run
