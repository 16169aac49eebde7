"""`maoctl vote`: show, explain and audit how ground truth was decided; vote on any repository."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol

import typer

from maoctl import records
from maoctl.arguments import DatasetArgument, NamedDataset, datasets, strip_kind
from maoctl.exits import CommandError, ExitCode
from maoctl.lookup import Names, did_you_mean
from maoctl.output import print_facts, say, write
from maoctl.progress import working
from maoctl.session import CliSession, OutputOption, example, get_session
from maoctl.text import harmless_line, short_commit
from maoctl.tree import App
from maoctl.views import schemas, votes

from . import vote_schema

if TYPE_CHECKING:
    from mao_shared.clients.gateway_http import Resource
    from mao_shared.models import Dataset, evidence

app = App(help="Show, explain and audit how ground truth was decided; vote on any repository.")

RepoOption = Annotated[
    Path | None,
    typer.Option(
        "--repo", help="Use a git repository on this machine instead of a dataset.", show_default=False
    ),
]
TruthOption = Annotated[str, typer.Option("--truth", help="With --repo: branch with the rounds.")]
NamesArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[DATASET] [ROUND]",
        help="With --repo: [ROUND] only. Default: the latest round.",
        show_default=False,
        autocompletion=datasets,
    ),
]
CellOption = Annotated[
    tuple[str, str, str] | None,
    typer.Option(
        "--cell",
        metavar="FILE KEY FIELD",
        help="Explain one value. KEY is a,b for two key columns; FILE '' '' for a file voted as a whole.",
        show_default=False,
    ),
]
_MAX_SEARCHED = 10_000  # rounds, for those of a period
_MAX_SHOWN_COMMITS = 5
_MAX_WARNED_DATASETS = 10
LimitOption = Annotated[
    int, typer.Option("--limit", "-n", min=1, max=100_000, help="Maximum number of rows.")
]


class RoundSource(Protocol):
    """Source of rounds: a node, or a repository on this machine."""

    def decided(self, dataset: str, limit: int, /) -> list[evidence.RoundSummary]: ...
    def unattested(self, dataset: str, /) -> evidence.UnattestedCommits | None: ...
    def get(self, dataset: str, round_id: str | None, /) -> evidence.DecidedRound: ...
    def cells(
        self, dataset: str, round_id: str | None, file: str | None, limit: int, /, *, contested: bool = False
    ) -> list[evidence.ContestedCell]: ...
    def cell(
        self, dataset: str, round_id: str | None, file: str, key: str, field: str, /
    ) -> evidence.Explanation: ...
    def audit(self, dataset: str, round_id: str | None, /) -> evidence.Audit: ...
    def ranking(self, dataset: str, rounds: int, /) -> evidence.Ranking: ...


@app.command(
    epilog=example(
        "maoctl vote run --repo . --branches a,b,c",
        "maoctl vote run --repo data.git --branches a,b,c --definition vdx.yaml --write ground-truth",
    )
)
def run(
    context: typer.Context,
    branches: Annotated[
        str, typer.Option(help="Branches (or tags, commits) of the nodes, separated by commas.")
    ],
    repo: Annotated[Path, typer.Option(help="Git repository on this machine.")] = Path(),
    definition: Annotated[
        Path | None,
        typer.Option(
            "--definition", "-d", help="Vote definition, a VDX file (YAML or JSON).", show_default=False
        ),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            help="Previous ground truth, which breaks ties [default: the branch of --write].",
            show_default=False,
        ),
    ] = None,
    write: Annotated[
        str | None, typer.Option(help="Branch to create or move to the result.", show_default=False)
    ] = None,
    round_id: Annotated[
        str | None,
        typer.Option("--round", help="Id of the round [default: from the time of the newest commit]."),
    ] = None,
    output: OutputOption = None,
) -> None:
    """Vote on the branches of any git repository, without a node.

    No branch is moved unless --write names it. The result is a commit with its evidence under .mao/rounds;
    the same branches and definition give the same commit id everywhere.
    """
    from mao_shared.models import VoteDefinition
    from maoctl.documents import read_definition
    from maoctl.voting import LocalVote, run_vote

    session = get_session(context, output)
    names = [name.strip() for name in branches.split(",") if name.strip()]
    rules = VoteDefinition() if definition is None else read_definition(definition)
    vote = LocalVote(branches=names, definition=rules, base=base, write=write, round_id=round_id)
    with working("Voting"):
        outcome = run_vote(repo, vote)
    session.data(outcome, lambda: _print_round(session, outcome.decided))
    for pattern in outcome.unmatched:
        say(f"warning: {harmless_line(schemas.unmatched_words(pattern))}")
    commit = short_commit(outcome.decided.commit)
    if outcome.known:
        say(f"Already up to date: this round is commit {commit}.")
    elif outcome.moved:
        say(f"{write} is now at {commit}")
    else:
        say(f"No branch was moved.\nnext: git -C {repo} show --stat {commit}, or --write BRANCH to keep it")


@app.command(
    "list",
    lists=True,
    times=True,
    epilog=example("maoctl vote list sensors --since 7d", "maoctl vote list --repo data.git"),
)
def list_(
    context: typer.Context,
    dataset: NamedDataset = None,
    repo: RepoOption = None,
    truth: TruthOption = "ground-truth",
    limit: LimitOption = 20,
    output: OutputOption = None,
) -> None:
    """List the decided rounds, newest first."""
    session = get_session(context, output)
    source, name = _dataset_source(session, dataset, repo, truth)
    with did_you_mean((name, _datasets(session, repo))):
        found = source.decided(name, _MAX_SEARCHED if session.listing.has_period else limit)
        unattested = source.unattested(name) if found else None
    session.show(votes.ROUND, found, limit)
    if not found:
        _say_no_rounds(name)
    _say_warnings(name, found)
    if unattested is not None:
        for line in votes.unattested_lines(unattested):
            say(line)


def _say_warnings(dataset: str, rounds: list[evidence.RoundSummary]) -> None:
    """Say why decisions of a dataset's newest round, the first, may be wrong."""
    for found in rounds[:1]:
        where = f"{dataset} {found.round}".strip()
        for warning in found.warnings:
            say(f"warning: {harmless_line(f'{where}: {warning}')}")


def _say_no_rounds(dataset: str) -> None:
    say("no decided rounds yet")
    say(
        f"next: maoctl vote status {dataset}"
        if dataset
        else "next: maoctl vote run --branches A,B,C --write ground-truth"
    )


@app.command(
    lists=True,
    epilog=example("maoctl vote status", "maoctl vote status sensors --live", "maoctl vote status -o json"),
)
def status(
    context: typer.Context,
    dataset: NamedDataset = None,
    live: Annotated[bool, typer.Option("--live", help="Only rounds that have not ended.")] = False,
    limit: LimitOption = 20,
    output: OutputOption = None,
) -> None:
    """Show the current state of rounds, including open and undecided ones."""
    session = get_session(context, output)
    found = session.client.rounds.live(dataset, "live" if live else None, limit)
    if dataset is not None and not found.items and not found.waiting:
        records.fetch(session.client.datasets, dataset)  # raises NotFound
    session.show(votes.LIVE_ROUND, found.items)
    decided = dict.fromkeys(item.dataset for item in found.items if item.phase == "decided")
    for name in list(decided)[:_MAX_WARNED_DATASETS]:
        _say_warnings(name, session.client.rounds.decided(name, 1))
    if found.waiting:
        waiting = "1 snapshot waits" if found.waiting == 1 else f"{found.waiting} snapshots wait"
        say(f"{waiting} {'for the federation' if session.is_stale else 'to be announced'}")


@app.command(
    epilog=example(
        "maoctl vote show sensors",
        "maoctl vote show sensors 20260131T12 --cells",
        "maoctl vote show sensors --contested --file results.csv",
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
    cells: Annotated[bool, typer.Option("--cells", help="List the cells on which nodes differ.")] = False,
    contested: Annotated[
        bool, typer.Option("--contested", help="List only the cells in which no value has a majority.")
    ] = False,
    file: Annotated[
        str | None, typer.Option(help="With --cells: only in this file.", show_default=False)
    ] = None,
    limit: LimitOption = 100,
    output: OutputOption = None,
) -> None:
    """Show how a round was decided: voters and files, or the cells on which nodes differ, or one value."""
    session = get_session(context, output)
    source, name, round_id = _source(session, names or [], repo, truth)
    with did_you_mean((name, _datasets(session, repo))):
        if cell is not None:
            explanation = source.cell(name, round_id, *cell)
            session.data(explanation, lambda: _print_cell(session, explanation))
            if explanation.fault:
                say(f"warning: {harmless_line(explanation.fault)}")
        elif cells or contested or file is not None:
            found_cells = source.cells(name, round_id, file, limit, contested=contested)
            session.show(votes.CELL, found_cells)
            if session.output.for_people:
                say(votes.count_cells(source.get(name, round_id).evidence, file, len(found_cells)))
        else:
            found = source.get(name, round_id)
            session.data(found, lambda: _print_round(session, found))


@app.command(epilog=example("maoctl vote audit sensors 20260131T12", "maoctl vote audit --repo data.git"))
def audit(
    context: typer.Context,
    names: NamesArgument = None,
    repo: RepoOption = None,
    truth: TruthOption = "ground-truth",
    output: OutputOption = None,
) -> None:
    """Recompute a round, and check that rounds made all commits of ground truth; exit code 1 if not."""
    session = get_session(context, output)
    source, name, round_id = _source(session, names or [], repo, truth)
    with did_you_mean((name, _datasets(session, repo))), working("Recomputing the round"):
        found = source.audit(name, round_id)
    lines = [
        f"decided     commit {found.commit}  tree {found.tree}",
        f"recomputed  commit {found.recomputed_commit}  tree {found.recomputed_tree}",
        *(f"differs     {path}" for path in found.differing),
    ]
    session.data(found, lambda: write("".join(f"{harmless_line(line)}\n" for line in lines)))
    for note in found.notes:
        say(f"note: {harmless_line(note)}")
    faults = harmless_line("; ".join(found.faults))
    if not found.ok and found.commit == found.recomputed_commit:
        unattested = [short_commit(commit) for commit in found.strays.commits] if found.strays else []
        shown = " ".join(unattested[:_MAX_SHOWN_COMMITS])
        more = " …" if len(unattested) > _MAX_SHOWN_COMMITS else ""
        next_step = f"Look for {shown}{more} in the log: maoctl dataset log {name} --branch ground-truth"
        if repo is not None:
            next_step = f"See who made them, and their changes: git -C {repo} show --stat {shown}"
        raise CommandError(ExitCode.FAILED, f"Round {found.round} is reproduced, but {faults}.", next_step)
    if not found.ok:
        compare = f"git diff {short_commit(found.commit)} {short_commit(found.recomputed_commit)}"
        detail = f"Round {found.round} is not reproduced: {faults}."
        raise CommandError(ExitCode.FAILED, detail, f"Compare: {compare}")
    say(f"round/{found.round} is reproduced: {len(found.commits)} commits give {short_commit(found.commit)}")


@app.command(epilog=example("maoctl vote ranking sensors", "maoctl vote ranking --repo data.git"))
def ranking(
    context: typer.Context,
    dataset: NamedDataset = None,
    repo: RepoOption = None,
    truth: TruthOption = "ground-truth",
    rounds: Annotated[int, typer.Option(min=1, max=1000, help="Number of latest rounds.")] = 50,
    output: OutputOption = None,
) -> None:
    """Rank the nodes by how often they differ from decisions, compared with all others."""
    session = get_session(context, output)
    source, name = _dataset_source(session, dataset, repo, truth)
    with did_you_mean((name, _datasets(session, repo))):
        found = source.ranking(name, rounds)
    session.data(found, lambda: session.show(votes.RANKED, found.items))
    if not found.rounds:
        _say_no_rounds(name)
    for node in found.items:
        if node.strange:
            say(f"{harmless_line(node.node)} differs more often than chance explains.")


@app.command(epilog=example("maoctl vote spikes sensors"))
def spikes(
    context: typer.Context,
    dataset: DatasetArgument,
    rounds: Annotated[int, typer.Option(min=1, max=1000, help="Number of latest rounds.")] = 100,
    output: OutputOption = None,
) -> None:
    """Show spikes of control metrics, and whether they occur on one node or in the consensus."""
    session = get_session(context, output)
    with did_you_mean((dataset, _datasets(session, None))):
        found = session.client.rounds.spikes(dataset, rounds)
    session.data(found, lambda: session.show(votes.SPIKE, found.items))
    if not found.rounds:
        _say_no_rounds(dataset)
    if not found.metrics:
        say("no step that writes to the dataset has a control metric")
        say("next: declare one with --metric: maoctl pipeline create --help")


def _source(
    session: CliSession, names: list[str], repo: Path | None, truth: str
) -> tuple[RoundSource, str, str | None]:
    """Return the source of rounds, the dataset, and the round if one is given."""
    max_names = 2 if repo is None else 1
    if len(names) > max_names or (repo is None and not names):
        raise CommandError(
            ExitCode.USAGE,
            f"Unexpected argument {names[max_names]!r}."
            if names
            else "Name a dataset, or a repository with --repo.",
            "Use: maoctl vote show DATASET [ROUND], or maoctl vote show --repo PATH [ROUND]",
        )
    round_id = strip_kind("round")(names[max_names - 1] if len(names) == max_names else None)
    if repo is None:
        return session.client.rounds, strip_kind("dataset")(names[0]) or "", round_id
    from maoctl.voting import LocalRounds

    return LocalRounds(repo, truth), "", round_id


def _dataset_source(
    session: CliSession, dataset: str | None, repo: Path | None, truth: str
) -> tuple[RoundSource, str]:
    """Return the source of rounds and the dataset, for commands without a round."""
    if dataset is not None and repo is not None:
        raise CommandError(
            ExitCode.USAGE,
            f"Unexpected argument {dataset!r}: a dataset and --repo cannot be combined.",
            "Omit one of them.",
        )
    source, name, _ = _source(session, [dataset] if dataset else [], repo, truth)
    return source, name


def _datasets(session: CliSession, repo: Path | None) -> Names | Resource[Dataset]:
    return session.client.datasets if repo is None else list


def _print_round(session: CliSession, decided: evidence.DecidedRound) -> None:
    if not session.output.for_people:
        session.show(votes.DECIDED, [decided])
        return
    print_facts(votes.round_facts(decided))
    write("\n")
    session.show(votes.VOTER, votes.list_voters(decided.evidence))
    if decided.evidence.files:
        write("\n")
        session.show(votes.VOTED_FILE, decided.evidence.files)


def _print_cell(session: CliSession, found: evidence.Explanation) -> None:
    contested = " (contested)" if found.contested else ""
    print_facts(
        [
            ("file", harmless_line(found.file)),
            ("record", ", ".join(found.key)),
            ("field", found.field),
            ("value", votes.short(found.chosen)),
            ("why", f"{found.why}{contested}: {found.words}"),
            (
                "nodes",
                "" if found.observed is None else f"{found.observed} of {len(found.values)} observed it",
            ),
            ("kind", votes.comparison(found.compared)),
            ("groups", "; ".join(f"{', '.join(group.nodes)} have one voice" for group in found.groups)),
            ("round", found.round),
            ("at the tip", votes.short(found.at_tip) if found.fault else ""),
        ]
    )
    write("\n")
    session.show(votes.NODE_VALUE, votes.node_values(found))


vote_schema.add_to(app)
