"""`maoctl vote`: vote on any repository; see, explain and recompute how ground truth was decided."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer

from maoctl import records, views_vote
from maoctl.arguments import DatasetArgument, NamedDataset, datasets, strip_kind
from maoctl.exits import CommandError, ExitCode
from maoctl.lookup import did_you_mean, names_of, segment
from maoctl.output import Format, print_facts, say, write
from maoctl.session import CliSession, OutputOption, example, session_of
from maoctl.text import harmless_line

from . import dataset_vote

if TYPE_CHECKING:
    from collections.abc import Iterator

app = typer.Typer(help="Decide ground truth from several nodes' branches, and see how it was decided.")

RepoOption = Annotated[
    Path | None,
    typer.Option("--repo", help="A git repository on this machine instead of a dataset.", show_default=False),
]
TruthOption = Annotated[
    str, typer.Option("--truth", help="With --repo: the branch that rounds were written to.")
]
NamesArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[DATASET] [ROUND]",
        help="With --repo only the round. No round: the newest.",
        show_default=False,
        autocompletion=datasets,
    ),
]
CellOption = Annotated[
    tuple[str, str, str] | None,
    typer.Option(
        "--cell",
        metavar="FILE KEY FIELD",
        help="Explain one value. Several key columns: a,b. Of a file voted as a whole: FILE '' ''.",
        show_default=False,
    ),
]
LimitOption = Annotated[int, typer.Option("--limit", "-n", min=1, max=100_000, help="At most so many.")]


class RoundSource(Protocol):
    """Who answers: a node, or the voter itself on a repository."""

    def rounds(self, dataset: str, limit: int, /) -> list[dict[str, Any]]: ...
    def strays(self, dataset: str, /) -> dict[str, Any] | None: ...
    def round(self, dataset: str, round_id: str | None, /) -> dict[str, Any]: ...
    def cells(
        self, dataset: str, round_id: str | None, file: str | None, limit: int, /
    ) -> list[dict[str, Any]]: ...
    def cell(
        self, dataset: str, round_id: str | None, file: str, key: str, field: str, /
    ) -> dict[str, Any]: ...
    def audit(self, dataset: str, round_id: str | None, /) -> dict[str, Any]: ...
    def ranking(self, dataset: str, rounds: int, /) -> dict[str, Any]: ...


@app.command(
    epilog=example(
        "maoctl vote run --repo . --branches a,b,c",
        "maoctl vote run --repo data.git --branches a,b,c --definition vdx.yaml --write ground-truth",
    )
)
def run(
    context: typer.Context,
    branches: Annotated[str, typer.Option(help="The nodes' branches (tags, commits), with commas between.")],
    repo: Annotated[Path, typer.Option(help="A git repository on this machine.")] = Path(),
    definition: Annotated[
        Path | None,
        typer.Option(
            "--definition", "-d", help="How to vote, a VDX file (YAML or JSON).", show_default=False
        ),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            help="Ground truth so far, which decides ties; else --write's branch.", show_default=False
        ),
    ] = None,
    write: Annotated[
        str | None, typer.Option(help="Branch to move to the result; may be new.", show_default=False)
    ] = None,
    round_id: Annotated[
        str | None, typer.Option("--round", help="Id of the round; else from the newest commit's time.")
    ] = None,
    output: OutputOption = None,
) -> None:
    """Vote on the branches of any git repository, without a node.

    No branch is moved unless --write names it. The result is a commit with its evidence under .mao/rounds;
    the same branches and definition give the same commit id everywhere.
    """
    from maoctl.voting import run_vote

    session = session_of(context)
    names = [each.strip() for each in branches.split(",") if each.strip()]
    wanted = {} if definition is None else dataset_vote.read_definition(definition)
    outcome = run_vote(repo, wanted, branches=names, base=base, write=write, round_id=round_id)
    session.data(outcome, output, lambda: _print_round(session, outcome, output))
    _tell_outcome(outcome, repo, write)


def _tell_outcome(outcome: dict[str, Any], repo: Path, write_to: str | None) -> None:
    short = outcome["commit"][:10]
    if outcome["known"]:
        say(f"Already decided so by {short}; nothing was written.")
    elif outcome["moved"]:
        say(f"{write_to} is now {short}")
    else:
        say(f"No branch was moved. See it: git -C {repo} show --stat {short}; keep it: --write BRANCH")


@app.command("list", epilog=example("maoctl vote list sensors", "maoctl vote list --repo data.git"))
def list_(
    context: typer.Context,
    dataset: NamedDataset = None,
    repo: RepoOption = None,
    truth: TruthOption = "ground-truth",
    limit: LimitOption = 20,
    output: OutputOption = None,
) -> None:
    """List the rounds that were decided, the newest first."""
    session = session_of(context)
    source, name = _of_all_rounds(session, dataset, repo, truth)
    with did_you_mean((name, _datasets(session, repo))):
        found = source.rounds(name, limit)
        strays = source.strays(name) if found else None
    session.show(views_vote.ROUND, found, output)
    if not found:
        _tell_none_yet(name)
    if strays is not None:
        for line in views_vote.stray_lines(strays):
            say(line)


def _tell_none_yet(dataset: str) -> None:
    """Before the first round."""
    say("no round is decided yet")
    say(f"next: maoctl vote status {dataset}" if dataset else "next: maoctl vote run --write ground-truth")


@app.command(
    epilog=example("maoctl vote status", "maoctl vote status sensors --live", "maoctl vote status -o json")
)
def status(
    context: typer.Context,
    dataset: NamedDataset = None,
    live: Annotated[bool, typer.Option("--live", help="Only those that have not ended.")] = False,
    limit: LimitOption = 20,
    output: OutputOption = None,
) -> None:
    """Show rounds as they stand now, also those that are open or undecided, and why."""
    session = session_of(context)
    name = None if dataset is None else segment(dataset)
    found, waiting = session.client.live_rounds(name, "live" if live else None, limit)
    if dataset is not None and not found and not waiting:
        records.fetch(
            session.client.datasets, strip_kind("dataset")(dataset) or ""
        )  # raises where there is none
    session.show(views_vote.LIVE_ROUND, found, output)
    if waiting:
        what = "1 snapshot waits" if waiting == 1 else f"{waiting} snapshots wait"
        say(f"{what} {'for the federation' if session.is_stale else 'to be announced'}")


@app.command(
    epilog=example(
        "maoctl vote show sensors",
        "maoctl vote show sensors 20260131T12 --cells",
        "maoctl vote show sensors --cell results.csv node-7 temperature",
        "maoctl vote show --repo data.git 20260131T120000Z-by-hand",
    )
)
def show(
    context: typer.Context,
    names: NamesArgument = None,
    repo: RepoOption = None,
    truth: TruthOption = "ground-truth",
    cell: CellOption = None,
    cells: Annotated[bool, typer.Option("--cells", help="List the cells in which nodes differ.")] = False,
    file: Annotated[
        str | None, typer.Option(help="With --cells: only of this file.", show_default=False)
    ] = None,
    limit: LimitOption = 100,
    output: OutputOption = None,
) -> None:
    """Show how a round was decided: who voted and where they differed; or the cells; or explain one value."""
    session = session_of(context)
    source, name, round_id = _source(session, names or [], repo, truth)
    with did_you_mean((name, _datasets(session, repo))):
        if cell is not None:
            told = source.cell(name, round_id, *cell)
            session.data(told, output, lambda: _print_cell(session, told, output))
            if told.get("fault"):
                say(f"warning: {harmless_line(told['fault'])}")
        elif cells or file is not None:
            session.show(views_vote.CELL, source.cells(name, round_id, file, limit), output)
        else:
            found = source.round(name, round_id)
            session.data(found, output, lambda: _print_round(session, found, output))


@app.command(epilog=example("maoctl vote audit sensors 20260131T12", "maoctl vote audit --repo data.git"))
def audit(
    context: typer.Context,
    names: NamesArgument = None,
    repo: RepoOption = None,
    truth: TruthOption = "ground-truth",
    output: OutputOption = None,
) -> None:
    """Compute a round again from the commits that it pinned: 0 if the same commit comes out, 1 if not."""
    session = session_of(context)
    source, name, round_id = _source(session, names or [], repo, truth)
    with did_you_mean((name, _datasets(session, repo))):
        found = source.audit(name, round_id)
    session.data(
        found, output, lambda: write("".join(f"{harmless_line(each)}\n" for each in _audit_lines(found)))
    )
    for note in found["notes"]:
        say(f"note: {harmless_line(note)}")
    if not found["ok"] and found["commit"] == found["recomputed_commit"]:
        raise CommandError(
            ExitCode.FAILED,
            f"Round {found['round']} comes out again, but {harmless_line('; '.join(found['faults']))}.",
            _how_to_see(found, repo, name),
        )
    if not found["ok"]:
        raise CommandError(
            ExitCode.FAILED,
            f"Round {found['round']} does not come out again: {harmless_line('; '.join(found['faults']))}.",
            f"Compare: git diff {found['commit'][:10]} {found['recomputed_commit'][:10]}",
        )
    say(
        f"round/{found['round']} comes out again: {len(found['commits'])} commits give {found['commit'][:10]}"
    )


@app.command(epilog=example("maoctl vote ranking sensors", "maoctl vote ranking --repo data.git"))
def ranking(
    context: typer.Context,
    dataset: NamedDataset = None,
    repo: RepoOption = None,
    truth: TruthOption = "ground-truth",
    rounds: Annotated[int, typer.Option(min=1, max=1000, help="How many of the last rounds count.")] = 50,
    output: OutputOption = None,
) -> None:
    """Rank the nodes by how unusually often they differ from what was decided, against all the others."""
    session = session_of(context)
    source, name = _of_all_rounds(session, dataset, repo, truth)
    with did_you_mean((name, _datasets(session, repo))):
        found = source.ranking(name, rounds)
    session.data(found, output, lambda: session.show(views_vote.RANKED, found["items"], output))
    if not found["rounds"]:
        _tell_none_yet(name)
    for each in found["items"]:
        if each["strange"]:
            say(f"{harmless_line(each['node'])} differs more often than chance explains.")


@app.command(epilog=example("maoctl vote spikes sensors"))
def spikes(
    context: typer.Context,
    dataset: DatasetArgument,
    rounds: Annotated[int, typer.Option(min=1, max=1000, help="How many of the last rounds count.")] = 100,
    output: OutputOption = None,
) -> None:
    """Show where a control metric spikes, and whether in one node or in what the nodes agree on."""
    session = session_of(context)
    with did_you_mean((dataset, _datasets(session, None))):
        found = session.client.spikes(segment(dataset), rounds)
    session.data(found, output, lambda: session.show(views_vote.SPIKE, found["items"], output))
    if not found["rounds"]:
        _tell_none_yet(dataset)
    if not found["metrics"]:
        say("no step that writes to it has a control metric: maoctl pipeline create … --metric")


_NAMED = 5  # commits that a hint names


def _how_to_see(found: dict[str, Any], repo: Path | None, dataset: str) -> str:
    """Where the commits are that no round made."""
    commits = [commit[:10] for commit in (found.get("strays") or {}).get("commits", [])]
    named = " ".join(commits[:_NAMED]) + (" …" if len(commits) > _NAMED else "")
    if repo is not None:
        return (
            f"See who made them, and what they change: git -C {repo} show --stat {' '.join(commits[:_NAMED])}"
        )
    return f"See {named} in: maoctl dataset log {dataset} --branch ground-truth"


def _audit_lines(found: dict[str, Any]) -> Iterator[str]:
    yield f"decided     commit {found['commit']}  tree {found['tree']}"
    yield f"recomputed  commit {found['recomputed_commit']}  tree {found['recomputed_tree']}"
    for path in found["differing"]:
        yield f"differs     {path}"


def _source(
    session: CliSession, names: list[str], repo: Path | None, truth: str
) -> tuple[RoundSource, str, str | None]:
    """Who answers, the dataset, and the round if one is named."""
    most = 2 if repo is None else 1
    if len(names) > most or (repo is None and not names):
        raise CommandError(
            ExitCode.USAGE,
            "Name a dataset, or a repository with --repo."
            if not names
            else f"{names[most]!r} is one word too much.",
            "maoctl vote show DATASET [ROUND], or maoctl vote show --repo PATH [ROUND]",
        )
    round_id = strip_kind("round")(names[most - 1] if len(names) == most else None)
    if repo is None:
        name = strip_kind("dataset")(names[0]) or ""
        return session.client, segment(name), None if round_id is None else segment(round_id)
    from maoctl.voting import LocalRounds

    return LocalRounds(repo, truth), "", round_id


def _of_all_rounds(
    session: CliSession, dataset: str | None, repo: Path | None, truth: str
) -> tuple[RoundSource, str]:
    """Who answers, and the dataset, of a question that is about no single round."""
    if dataset is not None and repo is not None:
        raise CommandError(
            ExitCode.USAGE,
            f"{dataset!r} is one word too much: with --repo the repository is asked, and no dataset.",
            "Leave either of them out.",
        )
    source, name, _ = _source(session, [dataset] if dataset else [], repo, truth)
    return source, name


def _datasets(session: CliSession, repo: Path | None) -> Any:
    return names_of(session.client.datasets) if repo is None else list


def _print_round(session: CliSession, decided: dict[str, Any], output: Format | None) -> None:
    evidence = decided["evidence"]
    how = output or session.output
    if not how.for_people:
        session.show(views_vote.ROUND, [{"round": evidence["round"]}], output)
        return
    print_facts(views_vote.round_facts(decided))
    write("\n")
    session.show(views_vote.VOTER, views_vote.voters_of(evidence), output)
    if evidence["files"]:
        write("\n")
        session.show(views_vote.VOTED_FILE, evidence["files"], output)


def _print_cell(session: CliSession, told: dict[str, Any], output: Format | None) -> None:
    contested = " (contested)" if told["contested"] else ""
    print_facts(
        [
            ("file", harmless_line(told["file"])),
            ("record", ", ".join(told["key"])),
            ("field", told["field"]),
            ("value", views_vote.short(told["chosen"])),
            ("why", f"{told['why']}{contested}: {told['words']}"),
            ("round", told["round"]),
            ("at the tip", views_vote.short(told.get("at_tip")) if told.get("fault") else ""),
        ]
    )
    write("\n")
    session.show(views_vote.SAID, views_vote.said(told), output)
