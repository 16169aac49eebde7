"""`maoctl vote`: vote on any repository; see, explain and recompute how ground truth was decided."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol

import typer

from maoctl import records
from maoctl.arguments import DatasetArgument, NamedDataset, datasets, strip_kind
from maoctl.exits import CommandError, ExitCode
from maoctl.lookup import Names, did_you_mean
from maoctl.output import print_facts, say, write
from maoctl.session import CliSession, OutputOption, example, get_session
from maoctl.text import harmless_line, short_commit
from maoctl.views import votes

if TYPE_CHECKING:
    from mao_shared.clients.gateway_http import Resource
    from mao_shared.models import Dataset, evidence
    from maoctl.voting import LocalOutcome

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
LimitOption = Annotated[int, typer.Option("--limit", "-n", min=1, max=100_000, help="At most this many.")]


class RoundSource(Protocol):
    """Who answers: a node, or the voter itself on a repository."""

    def decided(self, dataset: str, limit: int, /) -> list[evidence.RoundSummary]: ...
    def unattested(self, dataset: str, /) -> evidence.UnattestedCommits | None: ...
    def get(self, dataset: str, round_id: str | None, /) -> evidence.DecidedRound: ...
    def cells(
        self, dataset: str, round_id: str | None, file: str | None, limit: int, /
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
    from mao_shared.models import VoteDefinition
    from maoctl.documents import read_definition
    from maoctl.voting import LocalVote, run_vote

    session = get_session(context, output)
    names = [each.strip() for each in branches.split(",") if each.strip()]
    rules = VoteDefinition() if definition is None else read_definition(definition)
    vote = LocalVote(branches=names, definition=rules, base=base, write=write, round_id=round_id)
    outcome = run_vote(repo, vote)
    session.data(outcome, lambda: _print_round(session, outcome.decided))
    _report_outcome(outcome, repo, write)


def _report_outcome(outcome: LocalOutcome, repo: Path, write_to: str | None) -> None:
    short = short_commit(outcome.decided.commit)
    if outcome.known:
        say(f"Already decided like this by {short}; nothing was written.")
    elif outcome.moved:
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
    session = get_session(context, output)
    source, name = _dataset_source(session, dataset, repo, truth)
    with did_you_mean((name, _datasets(session, repo))):
        found = source.decided(name, limit)
        unattested = source.unattested(name) if found else None
    session.show(votes.ROUND, found)
    if not found:
        _report_none_yet(name)
    if unattested is not None:
        for line in votes.unattested_lines(unattested):
            say(line)


def _report_none_yet(dataset: str) -> None:
    """Says what to do before the first round."""
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
    session = get_session(context, output)
    found = session.client.rounds.live(dataset, "live" if live else None, limit)
    if dataset is not None and not found.items and not found.waiting:
        records.fetch(session.client.datasets, dataset)  # raises where there is none
    session.show(votes.LIVE_ROUND, found.items)
    if found.waiting:
        what = "1 snapshot waits" if found.waiting == 1 else f"{found.waiting} snapshots wait"
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
    session = get_session(context, output)
    source, name, round_id = _source(session, names or [], repo, truth)
    with did_you_mean((name, _datasets(session, repo))):
        if cell is not None:
            explanation = source.cell(name, round_id, *cell)
            session.data(explanation, lambda: _print_cell(session, explanation))
            if explanation.fault:
                say(f"warning: {harmless_line(explanation.fault)}")
        elif cells or file is not None:
            session.show(votes.CELL, source.cells(name, round_id, file, limit))
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
    """Recompute a round from the commits that it pinned: 0 if it gives the same commit, 1 if not."""
    session = get_session(context, output)
    source, name, round_id = _source(session, names or [], repo, truth)
    with did_you_mean((name, _datasets(session, repo))):
        found = source.audit(name, round_id)
    lines = [
        f"decided     commit {found.commit}  tree {found.tree}",
        f"recomputed  commit {found.recomputed_commit}  tree {found.recomputed_tree}",
        *(f"differs     {path}" for path in found.differing),
    ]
    session.data(found, lambda: write("".join(f"{harmless_line(each)}\n" for each in lines)))
    for note in found.notes:
        say(f"note: {harmless_line(note)}")
    faults = harmless_line("; ".join(found.faults))
    if not found.ok and found.commit == found.recomputed_commit:
        detail = f"Round {found.round} is reproduced, but {faults}."
        raise CommandError(ExitCode.FAILED, detail, _inspection_step(found, repo, name))
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
    rounds: Annotated[int, typer.Option(min=1, max=1000, help="How many of the last rounds to count.")] = 50,
    output: OutputOption = None,
) -> None:
    """Rank the nodes by how unusually often they differ from what was decided, against all the others."""
    session = get_session(context, output)
    source, name = _dataset_source(session, dataset, repo, truth)
    with did_you_mean((name, _datasets(session, repo))):
        found = source.ranking(name, rounds)
    session.data(found, lambda: session.show(votes.RANKED, found.items))
    if not found.rounds:
        _report_none_yet(name)
    for node in found.items:
        if node.strange:
            say(f"{harmless_line(node.node)} differs more often than chance explains.")


@app.command(epilog=example("maoctl vote spikes sensors"))
def spikes(
    context: typer.Context,
    dataset: DatasetArgument,
    rounds: Annotated[int, typer.Option(min=1, max=1000, help="How many of the last rounds to count.")] = 100,
    output: OutputOption = None,
) -> None:
    """Show where a control metric spikes, and whether in one node or in what the nodes agree on."""
    session = get_session(context, output)
    with did_you_mean((dataset, _datasets(session, None))):
        found = session.client.rounds.spikes(dataset, rounds)
    session.data(found, lambda: session.show(votes.SPIKE, found.items))
    if not found.rounds:
        _report_none_yet(dataset)
    if not found.metrics:
        say("no step that writes to it has a control metric: maoctl pipeline create … --metric")


_SHOWN_COMMITS = 5


def _inspection_step(found: evidence.Audit, repo: Path | None, dataset: str) -> str:
    """How to see the commits that no round made."""
    commits = [short_commit(commit) for commit in found.strays.commits] if found.strays else []
    shown = " ".join(commits[:_SHOWN_COMMITS])
    if repo is not None:
        return f"See who made them, and what they change: git -C {repo} show --stat {shown}"
    more = " …" if len(commits) > _SHOWN_COMMITS else ""
    return f"See {shown}{more} in: maoctl dataset log {dataset} --branch ground-truth"


def _source(
    session: CliSession, names: list[str], repo: Path | None, truth: str
) -> tuple[RoundSource, str, str | None]:
    """Who answers, the dataset, and the round if one is named."""
    most = 2 if repo is None else 1
    if len(names) > most or (repo is None and not names):
        raise CommandError(
            ExitCode.USAGE,
            f"Unexpected argument {names[most]!r}."
            if names
            else "Name a dataset, or a repository with --repo.",
            "maoctl vote show DATASET [ROUND], or maoctl vote show --repo PATH [ROUND]",
        )
    round_id = strip_kind("round")(names[most - 1] if len(names) == most else None)
    if repo is None:
        return session.client.rounds, strip_kind("dataset")(names[0]) or "", round_id
    from maoctl.voting import LocalRounds

    return LocalRounds(repo, truth), "", round_id


def _dataset_source(
    session: CliSession, dataset: str | None, repo: Path | None, truth: str
) -> tuple[RoundSource, str]:
    """Who answers, and the dataset, of a question that is about no single round."""
    if dataset is not None and repo is not None:
        raise CommandError(
            ExitCode.USAGE,
            f"Unexpected argument {dataset!r}: with --repo no dataset is named.",
            "Omit either of them.",
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
            ("round", found.round),
            ("at the tip", votes.short(found.at_tip) if found.fault else ""),
        ]
    )
    write("\n")
    session.show(votes.NODE_VALUE, votes.node_values(found))
