"""`maoctl run export|verify|reproduce`: runs as RO-Crates, integrity checks, reproductions."""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import unquote

import typer

from mao_shared.errors import NotFound
from maoctl.arguments import RunArgument, duration_option
from maoctl.exits import CommandError, ExitCode
from maoctl.output import say, write
from maoctl.progress import transfer, working
from maoctl.session import CliSession, OutputOption, example, get_session
from maoctl.text import harmless_line
from maoctl.tree import App
from maoctl.views.runs import RUN, VERIFICATION

if TYPE_CHECKING:
    from mao_shared.models import Reproduced

CrateFile = Annotated[
    Path | None,
    typer.Option("--crate", exists=True, dir_okay=False, help="Also compare this crate.", show_default=False),
]


def add_to(app: App) -> None:
    """Add the commands to `maoctl run`."""
    app.command(epilog=example("maoctl run export 1f3a5c7d -o crate.zip"))(export)
    app.command(epilog=example("maoctl run verify 1f3a5c7d", "maoctl run verify 1f3a5c7d --crate crate.zip"))(
        verify
    )
    app.command(epilog=example("maoctl run reproduce 1f3a5c7d --wait"))(reproduce)


def export(
    context: typer.Context,
    run: RunArgument,
    out: Annotated[Path, typer.Option("--out", "-o", help="Zip file to write.")],
    data: Annotated[bool, typer.Option("--data/--no-data", help="Include inputs and outputs.")] = True,
) -> None:
    """Export a run as an RO-Crate: inputs, outputs, logs and provenance."""
    session = get_session(context)
    partial = out.with_name(f".{out.name}.part")
    try:
        run_id = _run_id(session, run)
        with partial.open("wb") as file, transfer(f"Exporting {run_id}", file) as counted:
            size = session.client.runs.crate(run_id, counted, data=data)
        partial.replace(out)
    except OSError as error:
        raise CommandError(
            ExitCode.FAILED,
            f"{out} cannot be written: {error.strerror}.",
            "Name another file with --out.",
        ) from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
    say(f"{out}: {size} bytes")


def verify(
    context: typer.Context, run: RunArgument, crate: CrateFile = None, output: OutputOption = None
) -> None:
    """Compare every byte of a run's snapshots and logs with its record: exit code 0 if equal, 1 if not."""
    session = get_session(context, output)
    run_id = _run_id(session, run)
    with working("Comparing every byte"):
        report = session.client.runs.verify(run_id)
    lines = [
        harmless_line(f"{fault.step} {fault.what} {fault.path or ''}".rstrip() + f": {fault.detail}")
        for fault in report.faults
    ]
    if crate is not None:
        metadata = session.client.runs.crate_metadata(run_id)
        lines += [harmless_line(line) for line in crate_faults(crate, metadata)]
    if not session.output.for_people:
        session.show_one(VERIFICATION, report.model_copy(update={"ok": not lines}))
    else:
        write("".join(f"{line}\n" for line in lines))
    for unchecked in report.unchecked:
        say(f"not checked: {harmless_line(unchecked)}")
    if lines:
        raise CommandError(
            ExitCode.FAILED, f"First difference: {lines[0]}", f"See the record: maoctl run show {run_id}"
        )
    say(f"run/{run_id} is as recorded: {report.files} files, {report.bytes} bytes")


def _run_id(session: CliSession, run: str) -> str:
    """Return the full id of a run; for one that is no longer in the store, what was typed."""
    from maoctl.lookup import find_run

    try:
        return find_run(session.client, run).id
    except (NotFound, CommandError) as error:
        if isinstance(error, CommandError) and error.code is not ExitCode.NOT_FOUND:
            raise
        return run


# Comparison of a crate with its metadata, and with the node's

CRATE_METADATA = "ro-crate-metadata.json"
_NEWER_ON_NODE = frozenset({"run.json"})  # the node's may record a later push
_CHUNK = 1 << 20  # bytes
Digest = tuple[int, str]  # size in bytes, SHA-256


def crate_faults(path: Path, node: dict[str, Any]) -> Iterator[str]:
    """Yield the faults of a crate, one line each. `node`: the metadata from the node."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield from _crate_faults(archive, node)
    except (zipfile.BadZipFile, OSError, ValueError, KeyError) as error:
        yield f"{path.name}: not a readable crate: {error}"


def _crate_faults(archive: zipfile.ZipFile, node: dict[str, Any]) -> Iterator[str]:
    claimed = digests(json.loads(archive.read(CRATE_METADATA)))
    known = digests(node)
    names = set(archive.namelist()) - {CRATE_METADATA}
    for name, digest in claimed.items():
        found = _digest(archive, name) if name in names else "missing"
        if isinstance(found, str):
            yield f"{name}: {found}"
        elif found != digest:
            yield f"{name}: {_describe(found)}; its metadata says {_describe(digest)}"
        elif name in known and name not in _NEWER_ON_NODE and known[name] != digest:
            yield f"{name}: {_describe(found)}; the node has {_describe(known[name])}"
    yield from (f"{name}: not listed in the metadata" for name in sorted(names - claimed.keys()))
    has_data = any("/output/" in name or "/input/" in name for name in claimed)
    if has_data:  # otherwise it was exported with --no-data
        yield from (
            f"{name}: on the node, but not in the crate" for name in sorted(known.keys() - claimed.keys())
        )


def digests(metadata: dict[str, Any]) -> dict[str, Digest]:
    """Return the digests of the files in a crate's metadata, by path."""
    files = (entity for entity in metadata["@graph"] if entity.get("@type") == "File")
    return {unquote(entity["@id"]): (int(entity["contentSize"]), str(entity["sha256"])) for entity in files}


def _digest(archive: zipfile.ZipFile, name: str) -> Digest | str:
    """Return the digest of a file, or why it cannot be read."""
    digest, size = hashlib.sha256(), 0
    try:
        with archive.open(name) as file:
            while piece := file.read(_CHUNK):
                digest.update(piece)
                size += len(piece)
    except (zipfile.BadZipFile, zlib.error, OSError) as error:
        return f"cannot be read: {error}"
    return size, digest.hexdigest()


def _describe(digest: Digest) -> str:
    return f"{digest[0]} bytes with SHA-256 {digest[1]}"


# Reproduction


def reproduce(
    context: typer.Context,
    run: RunArgument,
    step: Annotated[
        str | None, typer.Option(help="Step; required if the run has several.", show_default=False)
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Wait for the comparison.")] = False,
    timeout: Annotated[float | None, duration_option("Longest wait, like 10m.", "--timeout")] = None,
    output: OutputOption = None,
) -> None:
    """Run a step again with the same image and input, and compare the output file by file.

    It runs in a scratch workspace. With --wait, the exit code is 0 if every file is identical, 1 if not, 7 if
    it could not be run.
    """
    from maoctl.follow import check_succeeded, wait_for_run
    from maoctl.lookup import find_run

    session = get_session(context, output)
    made = session.client.runs.reproduce(find_run(session.client, run).id, step)
    if not wait:
        session.done(RUN, made, "started")
        return
    say(f"run/{made.id} started")
    ended = wait_for_run(session, made.id, timeout)
    check_succeeded(ended)
    found = ended.steps[0].reproduced
    if not session.output.for_people:
        session.show_one(RUN, ended)
    elif found is not None:
        write("".join(f"{line}\n" for line in reproduced_lines(found)))
    if found is None or not found.same:
        raise CommandError(
            ExitCode.FAILED,
            "The step did not produce the same files.",
            "Its output is kept for a while in workspaces/"
            f"{ended.id} of the node's data directory; its log: maoctl run logs {ended.id}",
        )


def reproduced_lines(found: Reproduced) -> list[str]:
    """Return a line for each file that is not identical, and the number of identical ones."""
    kinds = {"different": found.different, "missing": found.missing, "extra": found.extra}
    lines = [f"{kind:<10} {harmless_line(path)}" for kind, paths in kinds.items() for path in paths]
    if found.unlisted:
        lines.append(f"           … and {found.unlisted} more")
    return [*lines, f"identical  {found.identical} file{'' if found.identical == 1 else 's'}"]
