"""Sets of observations with a known truth, the vote on them by the product's own path, and its score."""

from __future__ import annotations

import csv
import io
import math
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path

from mao_shared.models.round import VoteDefinition
from mao_vote import FileDecision, decide_file, open_local, rules3, vote_round
from mao_vote.tree_vote import RULES

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
Cell = tuple[str, str]
"""The key of a record and the name of a field."""
Found = Mapping[Cell, str]
Claims = dict[Cell, dict[str, str]]
"""The observed values of a cell by node; an empty text is no observation."""
ABSENT = "(absent)"
"""The truth of a cell that is in no ground truth, though a node tells it."""
IsRight = Callable[[str, str, str], bool]
"""Tells whether a value of a field is right: `(field, found, wanted)`."""


def is_same(_: str, found: str, wanted: str) -> bool:
    return found == wanted


@dataclass(frozen=True)
class Observed:
    """What the nodes published for one round of a file, and the truth of the cells that are scored.

    `read` returns the cells of a version that are not empty.
    """

    versions: Mapping[str, bytes]
    truth: Found
    read: Callable[[bytes], Found]

    @cached_property
    def claims(self) -> Claims:
        claims: Claims = {}
        for node, content in self.versions.items():
            for cell, value in self.read(content).items():
                claims.setdefault(cell, {})[node] = value
        return claims

    def without(self, nodes: Sequence[str]) -> Observed:
        """Return the round as it would be without some nodes."""
        rest = {node: content for node, content in self.versions.items() if node not in nodes}
        return Observed(rest, self.truth, self.read)


@dataclass(frozen=True)
class TruthSet:
    """Rounds of one file whose result is scored.

    `words`: fields whose values are no measures, even if they look like numbers. `in_sequence`: by rounds of
    a git repository, in which history builds up; else each round on its own. `first`: the first round that is
    scored. `goal`: the share of right cells to reach. `floors`: the methods that the vote must equal.
    `below`: why it may be below plurality, if that is not a floor.
    """

    name: str
    rounds: Sequence[Observed]
    definition: VoteDefinition = field(default_factory=VoteDefinition)
    is_right: IsRight = is_same
    words: frozenset[str] = frozenset()
    in_sequence: bool = False
    path: str = "a.csv"
    first: int = 0
    goal: float | None = None
    floors: tuple[str, ...] = ("plurality",)
    below: str = ""

    @property
    def scored(self) -> Sequence[Observed]:
        return self.rounds[self.first :]


@dataclass(frozen=True, slots=True)
class Score:
    """Whether each of the cells that somebody observed is right, with the names of their fields."""

    names: Sequence[str]
    right: Sequence[bool]

    @property
    def share(self) -> float:
        return sum(self.right) / len(self.right) if self.right else math.nan

    def by_field(self) -> dict[str, float]:
        cells = Counter(self.names)
        right = Counter(name for name, is_right in zip(self.names, self.right, strict=True) if is_right)
        return {name: right[name] / count for name, count in cells.items()}

    def margin(self, other: Score) -> float:
        """Return three standard errors of the difference of two shares of the same cells (McNemar)."""
        differing = sum(ours != theirs for ours, theirs in zip(self.right, other.right, strict=True))
        return 3 * math.sqrt(differing) / len(self.right) if self.right else 0.0


def score(observed: TruthSet, found: Sequence[Found]) -> Score:
    """Score the cells of the truth that are not empty and that at least one node observed.

    A record or cell that the result lacks is wrong.
    """
    names: list[str] = []
    right: list[bool] = []
    for part, result in zip(observed.scored, found, strict=True):
        for cell, wanted in part.truth.items():
            if wanted and cell in part.claims:
                value = result.get(cell, ABSENT)
                names.append(cell[1])
                right.append(
                    value == wanted or (value != ABSENT and observed.is_right(cell[1], value, wanted))
                )
    return Score(names, right)


def read_csv(content: bytes, key: str) -> dict[Cell, str]:
    """Return the cells of a CSV file that are not empty; none if it has no such key."""
    rows = csv.DictReader(io.StringIO(content.decode(), newline=""))
    if key not in (rows.fieldnames or ()):
        return {}
    return {(row[key], name): value for row in rows for name, value in row.items() if name != key and value}


def write_rows(names: Sequence[str], rows: Sequence[Sequence[object]]) -> bytes:
    """Return a CSV file."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(rows)
    return text.getvalue().encode()


def decide(observed: TruthSet, folder: Path, *, rules: int = RULES) -> list[Found]:
    """Return the cells of the ground truth of each scored round. `folder`: for a repository, if needed."""
    if observed.in_sequence:
        repository = Path(tempfile.mkdtemp(dir=folder))
        contents = vote_in_git(observed, repository, rules)[observed.first :]
    else:
        contents = [decision.content for decision in decide_each(observed, rules=rules)]
    return [
        {} if content is None else part.read(content)
        for part, content in zip(observed.scored, contents, strict=True)
    ]


def decide_each(observed: TruthSet, *, rules: int = RULES) -> list[FileDecision]:
    """Decide each scored round on its own, without an incumbent."""
    function = rules3.decide_file if rules == 3 else decide_file
    return [
        function(observed.path, part.versions, incumbent=None, definition=observed.definition, weights={})
        for part in observed.scored
    ]


def vote_in_git(observed: TruthSet, repository: Path, rules: int) -> list[bytes | None]:
    """Vote on the rounds one after the other in a new repository; return the file of each ground truth."""
    commits = commit_versions(observed, repository)
    clone = open_local(repository)
    contents: list[bytes | None] = []
    base: str | None = None
    for number, of_round in enumerate(commits):
        tick = EPOCH + timedelta(days=number)
        base = vote_round(
            clone,
            round_id=f"{tick:%Y%m%d}",
            tick=tick,
            nodes=sorted(of_round),
            commits=of_round,
            abstained={},
            base=base,
            definition=observed.definition,
            rules=rules,
        ).commit
        entry = clone.entry(base, observed.path)
        contents.append(None if entry is None else clone.read_blob(entry.id))
    return contents


def commit_versions(observed: TruthSet, repository: Path) -> list[dict[str, str]]:
    """Create a bare repository with a commit of each node for each round; return the ids by node."""
    subprocess.run(["git", "init", "--quiet", "--bare", repository], check=True)
    stream = io.BytesIO()
    marks: list[tuple[int, str]] = []
    for number, part in enumerate(observed.rounds):
        seconds = int((EPOCH + timedelta(days=number)).timestamp())
        for node, content in sorted(part.versions.items()):
            marks.append((number, node))
            stream.write(
                f"commit refs/heads/{node}/{number}\nmark :{len(marks)}\n"
                f"committer {node} <{node}@bench> {seconds} +0000\ndata 0\n"
                f"M 100644 inline {observed.path}\ndata {len(content)}\n".encode()
            )
            stream.write(content + b"\n")
    command = ["git", "-C", str(repository), "fast-import", "--quiet", "--export-marks=marks"]
    subprocess.run(command, input=stream.getvalue(), check=True)
    commits: list[dict[str, str]] = [{} for _ in observed.rounds]
    for line in (repository / "marks").read_text().splitlines():
        mark, commit = line.split()
        number, node = marks[int(mark[1:]) - 1]
        commits[number][node] = commit
    return commits
