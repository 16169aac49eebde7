"""Texts that look like close numbers and are none; and spellings of one number, which agree."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from bench.report import Measure
from mao_shared.models.round import VoteDefinition
from mao_vote import FileDecision, decide_file, rules3

from .compare import BEFORE
from .made_up import KEY, NODES, rng_of
from .sets import write_rows

ROWS = 40
Spell = Callable[[random.Random], str]
DIFFERENT: dict[str, tuple[str, str, Spell]] = {
    "status codes": ("404", "403", lambda rng: rng.choice(("200", "301", "400", "403", "404", "500"))),
    "ports": ("8080", "8081", lambda rng: rng.choice(("80", "443", "8080", "8081", "8443", "5432"))),
    "years": ("2025", "2024", lambda rng: str(rng.randrange(2015, 2027))),
    "dates": ("20260105", "20260330", lambda rng: f"2026{rng.randrange(1, 13):02}{rng.randrange(1, 29):02}"),
    "identifiers": ("1000017", "1000018", lambda rng: str(rng.randrange(1000001, 1000999))),
    "versions": ("3.10", "3.1", lambda rng: f"{rng.randrange(1, 4)}.{rng.randrange(13)}"),
    "postcodes": ("08001", "8001", lambda rng: f"{rng.randrange(1000, 99999):05}"),
    "git ids": ("7e2", "700", lambda rng: f"{rng.getrandbits(12):03x}"),
}
"""Kind -> two texts that are close as numbers, and the other texts of the column."""
EQUAL: dict[str, tuple[str, str, Spell]] = {
    "trailing zero of a measured number": ("2.50", "2.5", lambda rng: f"{rng.uniform(0, 9):.3f}"),
    "exponent of a measured number": ("7.5e2", "750.0", lambda rng: f"{rng.uniform(100, 999):.1f}"),
    "hour of a time": ("08:05", "8:05", lambda rng: f"{rng.randrange(10, 24)}:{rng.randrange(60):02}"),
}
"""Kind -> two spellings of one value, and the other texts of the column."""


def measure(_: Path, *, quick: bool) -> list[Measure]:
    """Count the kinds in which the nodes that differ are listed, and those of equal spellings that agree."""
    del quick
    return [
        count_kinds("texts that are close as numbers, listed as differing", DIFFERENT, lists_difference),
        count_kinds("spellings of one value, agreeing", EQUAL, lists_none),
    ]


def count_kinds(
    about: str, kinds: dict[str, tuple[str, str, Spell]], is_right: Callable[[FileDecision], bool]
) -> Measure:
    ours = {kind: is_right(decide_kind(kind, *texts, rules=None)) for kind, texts in kinds.items()}
    before = {kind: is_right(decide_kind(kind, *texts, rules=BEFORE)) for kind, texts in kinds.items()}
    wrong = ", ".join(kind for kind, right in ours.items() if not right)
    return Measure(
        name=f"truth, {about}, of {len(kinds)} kinds",
        ours=sum(ours.values()),
        unit="",
        beside={f"rules {BEFORE}": sum(before.values())},
        judged="ours",
        goal=len(kinds),
        limit=len(kinds),
        is_lower_bound=True,
        note=f"not so: {wrong or 'none'}; the kinds: {', '.join(kinds)}",
    )


def decide_kind(kind: str, common: str, other: str, spell: Spell, *, rules: int | None) -> FileDecision:
    """Decide a table in which two of five nodes have another text in one row."""
    rng = rng_of("lookalikes", kind)
    column = [spell(rng) for _ in range(ROWS)]
    versions = {}
    for node in NODES:
        texts = [*column, other if node in "de" else common]
        rows = [[f"r{row}", text] for row, text in enumerate(texts)]
        versions[node] = write_rows([KEY, "value"], rows)
    function = rules3.decide_file if rules == 3 else decide_file
    return function("a.csv", versions, incumbent=None, definition=VoteDefinition(), weights={})


def lists_difference(decision: FileDecision) -> bool:
    """Tell whether the row is listed, the two nodes count as differing, and the others' text is chosen."""
    cells = [cell for cell in decision.cells if cell.field == "value" and cell.key == (f"r{ROWS}",)]
    return (
        len(cells) == 1
        and cells[0].chosen == cells[0].values["a"]
        and [node for node, tally in decision.votes.items() if tally.differing] == ["d", "e"]
    )


def lists_none(decision: FileDecision) -> bool:
    return not any(tally.differing for tally in decision.votes.values())
