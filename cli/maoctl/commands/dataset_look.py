"""`maoctl dataset branches|diff|compare|download`."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from maoctl import views
from maoctl.arguments import DatasetArgument
from maoctl.exits import CommandError, ExitCode
from maoctl.lookup import did_you_mean, names_of, segment
from maoctl.output import say, write
from maoctl.session import CliSession, OutputOption, example, session_of
from maoctl.text import harmless, plain, size

if TYPE_CHECKING:
    from mao_shared.clients.gateway_data import BinaryWriter

KeyOption = Annotated[
    list[str] | None,
    typer.Option("--key", help="Column that tells records apart; may be repeated.", show_default=False),
]
LinesOption = Annotated[bool, typer.Option("--lines", help="Lines, where there are records too.")]
LimitOption = Annotated[
    int | None,
    typer.Option(
        "--limit", "-n", min=1, max=1000, help="At most so many files, rows or lines.", show_default=False
    ),
]
_COUNTED = ("added", "removed", "changed", "same")


def add_to(app: typer.Typer) -> None:
    """Adds the commands to `maoctl dataset`."""
    app.command(epilog=example("maoctl dataset branches data"))(branches)
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


def branches(context: typer.Context, name: DatasetArgument, output: OutputOption = None) -> None:
    """List the branches of a dataset as this node knows them."""
    session = session_of(context)
    with did_you_mean((name, names_of(session.client.datasets))):
        session.show(views.BRANCH, session.client.dataset_status(segment(name))["branches"], output)


def diff(
    context: typer.Context,
    name: DatasetArgument,
    before: Annotated[str, typer.Argument(metavar="A", help="Branch or commit before.")],
    after: Annotated[str, typer.Argument(metavar="B", help="Branch or commit after.")],
    path: Annotated[str | None, typer.Argument(help="Folder, or a file to look into.")] = None,
    key: KeyOption = None,
    lines: LinesOption = False,
    limit: LimitOption = None,
    output: OutputOption = None,
) -> None:
    """Show what differs between two commits: files, and of one file rows and fields, or lines."""
    _show(session_of(context), name, (before, after), path, key, lines, limit, output)


def compare(
    context: typer.Context,
    name: DatasetArgument,
    node: Annotated[str | None, typer.Argument(help="Else this node.", show_default=False)] = None,
    path: Annotated[str | None, typer.Argument(help="Folder, or a file to look into.")] = None,
    key: KeyOption = None,
    lines: LinesOption = False,
    limit: LimitOption = None,
    output: OutputOption = None,
) -> None:
    """Show where a node's branch differs from ground-truth."""
    _show(session_of(context), name, ("ground-truth", node), path, key, lines, limit, output)


def _show(
    session: CliSession,
    name: str,
    sides: tuple[str, str | None],
    path: str | None,
    key: list[str] | None,
    lines: bool,
    limit: int | None,
    output: OutputOption,
) -> None:
    manner = "lines" if lines else None
    with did_you_mean((name, names_of(session.client.datasets))):
        found = session.client.diff(
            segment(name), *sides, path=path, manner=manner, key=key or (), limit=limit
        )
    session.data(found, output, lambda: _for_people(session, found, output))


def _for_people(session: CliSession, found: dict[str, Any], output: OutputOption) -> None:
    if note := found.get("note"):
        say(note)
    if not found["files"]:
        say(f"No difference between {found['before'][:10]} and {found['after'][:10]}.")
    elif rows := found.get("rows"):
        session.show(views.FIELD_DIFFERENCE, _fields(rows["rows"]), output)
        say(_summary(rows))
    elif lines := found.get("lines"):
        write("".join(f"{harmless(line)}\n" for line in lines["lines"]))
        if lines["truncated"]:
            say("There are more lines: --limit shows up to 1000.")
    else:
        session.show(views.FILE_DIFFERENCE, found["files"], output)


def _fields(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A record a field that differs."""
    return [
        {"change": row["change"], "key": plain(row["key"]), "field": field, **(values or {})}
        for row in rows
        for field, values in (row["fields"] or {"": {}}).items()
    ]


def _summary(rows: dict[str, Any]) -> str:
    by = f"by {', '.join(rows['key'])} ({rows['key_source']})" if rows["key"] else "by position"
    counts = ", ".join(f"{rows[word]} {word}" for word in _COUNTED)
    columns = [f"column {name} added" for name in rows["columns_added"]]
    columns += [f"column {name} removed" for name in rows["columns_removed"]]
    more = ["not all shown (--limit)"] if rows["truncated"] else []
    return "; ".join([f"Rows matched {by}: {counts}", *columns, *more])


def download(
    context: typer.Context,
    name: DatasetArgument,
    path: Annotated[str | None, typer.Argument(help="File or folder; else all.", show_default=False)] = None,
    ref: Annotated[str, typer.Option(help="Branch or commit.")] = "ground-truth",
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="File to write (.zip, else .tar.gz for folders); '-': stdout."),
    ] = None,
) -> None:
    """Save a file, a folder or all of a dataset."""
    session = session_of(context)
    with did_you_mean((name, names_of(session.client.datasets))):
        if out is not None and str(out) == "-":
            _fetch(session, name, path, ref, sys.stdout.buffer, "tar.gz")
            return
        _save(session, name, path, ref, out)


def _save(session: CliSession, name: str, path: str | None, ref: str, out: Path | None) -> None:
    packing = "zip" if out is not None and out.suffix == ".zip" else "tar.gz"
    if out is not None and out.suffix in (".rar", ".7z", ".tar", ".bz2", ".xz", ".tbz", ".txz"):
        raise CommandError(
            ExitCode.USAGE, f"{out.suffix} is not written.", "Name a .zip or .tar.gz: --out FILE."
        )
    last = (path or "").rstrip("/").rpartition("/")[2]
    partial = (out.parent if out else Path()) / f".{(out.name if out else last) or 'data'}.part"
    try:
        with partial.open("wb") as target:  # what breaks off is not taken for the whole
            count, is_file = _fetch(session, name, path, ref, target, packing)
        saved = out or Path(last if is_file else f"{last or name}.{packing}")
        partial.replace(saved)
    except OSError as error:
        raise CommandError(
            ExitCode.FAILED,
            f"The file cannot be written: {out or partial.parent}: {error.strerror}.",
            "Name another: --out FILE.",
        ) from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
    say(f"{saved}: {size(count)}")


def _fetch(
    session: CliSession, name: str, path: str | None, ref: str, target: BinaryWriter, packing: str
) -> tuple[int, bool]:
    """Bytes written, and whether it is a file rather than an archive."""
    from mao_shared.errors import InvalidInput

    if path:
        try:
            return session.client.download(segment(name), path, target, ref=ref), True
        except InvalidInput as error:
            if error.code != "path-not-a-file":
                raise
    return session.client.archive(segment(name), target, ref=ref, path=path, packing=packing), False
