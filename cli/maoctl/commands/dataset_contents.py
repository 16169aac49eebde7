"""`maoctl dataset log|files|cat|branches|diff|compare|download`: contents of datasets."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mao_shared.errors import InvalidInput
from maoctl.arguments import DatasetArgument, strip_kind
from maoctl.exits import CommandError, ExitCode
from maoctl.lookup import did_you_mean
from maoctl.output import say, write
from maoctl.progress import transfer
from maoctl.session import CliSession, OutputOption, example, get_session
from maoctl.text import harmless, short_commit, size
from maoctl.tree import App
from maoctl.views import contents

if TYPE_CHECKING:
    from mao_shared.clients.gateway_data import BinaryWriter
    from mao_shared.models.dataset import DatasetDiff

REF = strip_kind("commit", "branch")  # as -o name prints them
RefOption = Annotated[str, typer.Option(help="Branch or commit.", callback=REF)]
KeyOption = Annotated[
    list[str] | None,
    typer.Option("--key", help="Key column that identifies records; may be repeated.", show_default=False),
]
LinesOption = Annotated[bool, typer.Option("--lines", help="Compare lines, even in files with records.")]
LimitOption = Annotated[
    int | None,
    typer.Option(
        "--limit", "-n", min=1, max=1000, help="Maximum number of files, rows or lines.", show_default=False
    ),
]


def add_to(app: App) -> None:
    """Add the commands to `maoctl dataset`."""
    app.command(lists=True, times=True, epilog=example("maoctl dataset log data --branch node-1"))(log)
    app.command(lists=True, epilog=example("maoctl dataset files data --ref ground-truth"))(files)
    app.command(epilog=example("maoctl dataset cat data results.csv --ref node-1"))(cat)
    app.command(lists=True, times=True, epilog=example("maoctl dataset branches data"))(branches)
    app.command(
        epilog=example(
            "maoctl dataset diff data ground-truth node-1",
            "maoctl dataset diff data 3f2a91c ground-truth results.csv --key repo",
        )
    )(diff)
    app.command(
        epilog=example("maoctl dataset compare data", "maoctl dataset compare data node-2 results.csv")
    )(compare)
    app.command(
        epilog=example(
            "maoctl dataset download data results.csv",
            "maoctl dataset download data --ref node-1 -o data.zip",
        )
    )(download)


def log(
    context: typer.Context,
    name: DatasetArgument,
    branch: Annotated[
        str | None,
        typer.Option(
            help="Branch [default: this node's].", show_default=False, callback=strip_kind("branch")
        ),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Maximum number of commits.")] = 20,
    output: OutputOption = None,
) -> None:
    """Show the commits of a branch, newest first."""
    session = get_session(context, output)
    with did_you_mean((name, session.client.datasets)):
        session.show(contents.COMMIT, session.client.datasets.log(name, branch), limit)


def files(
    context: typer.Context,
    name: DatasetArgument,
    ref: RefOption = "ground-truth",
    path: Annotated[str | None, typer.Option(help="Folder to list.", show_default=False)] = None,
    output: OutputOption = None,
) -> None:
    """List the files of a dataset."""
    session = get_session(context, output)
    with did_you_mean((name, session.client.datasets)):
        session.show(contents.FILE, session.client.datasets.files(name, ref=ref, path=path))


def cat(
    context: typer.Context,
    name: DatasetArgument,
    path: Annotated[str, typer.Argument(help="File in the dataset.")],
    ref: RefOption = "ground-truth",
    raw: Annotated[
        bool, typer.Option("--raw", help="Do not escape control characters on a terminal.")
    ] = False,
) -> None:
    """Write a file of a dataset to stdout."""
    from maoctl.logs import TextWriter

    session = get_session(context)
    writer = TextWriter(raw)
    with did_you_mean((name, session.client.datasets)):
        session.client.datasets.download(name, path, writer, ref=ref)
    writer.end()


def branches(context: typer.Context, name: DatasetArgument, output: OutputOption = None) -> None:
    """List the branches of a dataset as this node knows them."""
    session = get_session(context, output)
    with did_you_mean((name, session.client.datasets)):
        session.show(contents.BRANCH, session.client.datasets.status(name).branches)


def diff(
    context: typer.Context,
    name: DatasetArgument,
    before: Annotated[str, typer.Argument(metavar="A", help="Old branch or commit.", callback=REF)],
    after: Annotated[str, typer.Argument(metavar="B", help="New branch or commit.", callback=REF)],
    path: Annotated[str | None, typer.Argument(help="Folder, or a file to compare.")] = None,
    key: KeyOption = None,
    lines: LinesOption = False,
    limit: LimitOption = None,
    output: OutputOption = None,
) -> None:
    """Show the differences between two commits: files, or the rows or lines of one file."""
    _show(get_session(context, output), name, (before, after), path, key, lines, limit)


def compare(
    context: typer.Context,
    name: DatasetArgument,
    node: Annotated[str | None, typer.Argument(help="Node [default: this one].", show_default=False)] = None,
    path: Annotated[str | None, typer.Argument(help="Folder, or a file to compare.")] = None,
    key: KeyOption = None,
    lines: LinesOption = False,
    limit: LimitOption = None,
    output: OutputOption = None,
) -> None:
    """Show the differences between ground-truth and a node's branch."""
    _show(get_session(context, output), name, ("ground-truth", node), path, key, lines, limit)


def _show(
    session: CliSession,
    name: str,
    sides: tuple[str, str | None],
    path: str | None,
    key: list[str] | None,
    lines: bool,
    limit: int | None,
) -> None:
    with did_you_mean((name, session.client.datasets)):
        method = "lines" if lines else None
        found = session.client.datasets.diff(
            name, *sides, path=path, method=method, key=key or (), limit=limit
        )
    session.data(found, lambda: _print_diff(session, found))


def _print_diff(session: CliSession, found: DatasetDiff) -> None:
    if found.note:
        say(found.note)
    if not found.files:
        say(f"No difference between {short_commit(found.before)} and {short_commit(found.after)}.")
    elif found.rows:
        changes = [change for row in found.rows.rows for change in contents.field_changes(row)]
        session.show(contents.FIELD_DIFFERENCE, changes)
        say(contents.rows_summary(found.rows))
    elif found.lines:
        write("".join(f"{harmless(line)}\n" for line in found.lines.lines))
        if found.lines.truncated:
            say("Output truncated; --limit shows up to 1000 lines.")
    else:
        session.show(contents.FILE_DIFFERENCE, found.files)


def download(
    context: typer.Context,
    name: DatasetArgument,
    path: Annotated[
        str | None, typer.Argument(help="File or folder [default: all].", show_default=False)
    ] = None,
    ref: RefOption = "ground-truth",
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="File to write (folders: .zip or .tar.gz); - for stdout."),
    ] = None,
) -> None:
    """Download a file, a folder or all of a dataset."""
    session = get_session(context)
    with did_you_mean((name, session.client.datasets)):
        if out is not None and str(out) == "-":
            _fetch(session, name, path, ref, sys.stdout.buffer, "tar.gz")
            return
        _save(session, name, path, ref, out)


def _save(session: CliSession, name: str, path: str | None, ref: str, out: Path | None) -> None:
    packing = "zip" if out is not None and out.suffix == ".zip" else "tar.gz"
    if out is not None and out.suffix in (".rar", ".7z", ".tar", ".bz2", ".xz", ".tbz", ".txz"):
        raise CommandError(
            ExitCode.USAGE, f"{out.suffix} archives are not supported.", "Name a .zip or .tar.gz: --out FILE."
        )
    last = (path or "").rstrip("/").rpartition("/")[2]
    partial = (out.parent if out else Path()) / f".{(out.name if out else last) or 'data'}.part"
    try:
        with partial.open("wb") as target:  # an incomplete file never has the final name
            count, is_file = _fetch(session, name, path, ref, target, packing)
        saved = out or Path(last if is_file else f"{last or name}.{packing}")
        partial.replace(saved)
    except OSError as error:
        raise CommandError(
            ExitCode.FAILED,
            f"{out or partial.parent} cannot be written: {error.strerror}.",
            "Name another file with --out.",
        ) from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
    say(f"{saved}: {size(count)}")


def _fetch(
    session: CliSession, name: str, path: str | None, ref: str, target: BinaryWriter, packing: str
) -> tuple[int, bool]:
    """Download a file, or an archive of a folder. Returns the size in bytes, and True for a file."""
    with transfer(f"Downloading {name}", target) as counted:
        if path:
            try:
                found = session.client.datasets.download(name, path, counted, ref=ref, on_size=counted.expect)
                return found, True
            except InvalidInput as error:
                if error.code != "path-not-a-file":
                    raise
        return session.client.datasets.archive(name, counted, ref=ref, path=path, packing=packing), False
