"""Small tables with a known truth, each with one kind of gap, noise or fault; the same on every run."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Any

from bench.report import Measure
from mao_shared.models.round import FileRule, VoteDefinition

from .compare import compare
from .sets import Cell, IsRight, Observed, TruthSet, read_csv, write_rows

SEED = 20261130
_DRAW: ContextVar[int] = ContextVar("draw", default=0)
KEY = "name"
ROWS = 300
COPIERS = (((5,), 0.3, 0.5), ((6, 4, 3), 0.25, 0.6), ((6, 4, 3), 0.25, 1.0))
"""Sizes of families, the share of their errors, and the part of the cells that each family tells."""
NODES = tuple("abcde")
STATES = ("running", "stopped", "unknown", "degraded", "starting", "paused", "failed", "ready")
Observe = Callable[[str, str, str], str]
"""What a node observes of a cell: `(node, field, true value)`; empty if nothing."""
HISTORY = VoteDefinition(files=[FileRule(key=[KEY])], history="HYBRID")
read_table = partial(read_csv, key=KEY)


def measure(folder: Path, *, quick: bool) -> list[Measure]:
    """Score the vote on every kind of table. `quick`: with fewer records."""
    rows = ROWS // 3 if quick else ROWS
    return compare(tables(rows), folder)


def tables(rows: int) -> list[TruthSet]:
    """Return a set of each kind of table."""
    kinds = (sparse_nodes, liars, near_zero, faulty_nodes, uneven_nodes, colluding_nodes, copiers)
    return [observed for kind in kinds for observed in kind(rows)]


def measure_history(folder: Path, *, quick: bool) -> list[Measure]:
    """Score rounds of a repository from the second on, with and without history."""
    return compare(sequences(ROWS // 10 if quick else ROWS // 3), folder)


def sequences(rows: int) -> list[TruthSet]:
    """Return rounds of a repository, each set without and with history."""
    kinds = (liars_with_history, uneven_with_history, newcomer)
    return [observed for kind in kinds for observed in kind(rows)]


def sparse_nodes(rows: int) -> list[TruthSet]:
    """Five honest nodes that leave cells empty: exact, and with errors of their own."""
    sets = []
    for percent in (10, 30, 50, 60):
        rng = rng_of("sparse", percent)
        exact = observe_round(mixed_truth(rows, rng), leave_empty(rng, percent / 100, exactly))
        sets.append(TruthSet(f"5 honest nodes, {percent} % of cells empty", [exact], goal=0.99))
    for percent in (10, 30, 60):
        rng = rng_of("sparse numbers", percent)
        part = observe_round(numbers_truth(rows, rng), leave_empty(rng, percent / 100, noisy(rng, 0.01)))
        name = f"5 honest nodes, 1 % noise, {percent} % of cells empty"
        sets.append(TruthSet(name, [part], is_right=within(0.03), floors=("plurality", "median")))
    for percent in (10, 30, 60):
        rng = rng_of("sparse states", percent)
        wrong = mistaken(rng, dict.fromkeys(NODES, 0.1))
        part = observe_round(states_truth(rows, rng), leave_empty(rng, percent / 100, wrong))
        sets.append(TruthSet(f"5 nodes, 10 % of states wrong, {percent} % of cells empty", [part]))
    return sets


def liars(rows: int) -> list[TruthSet]:
    """Two of five nodes have the same wrong number, half as large again; the others have noise."""
    sets = []
    for percent in (0.1, 1, 2, 3, 5, 10, 20):
        rng = rng_of("liars", percent)
        part = observe_round(numbers_truth(rows, rng), with_liars(rng, percent / 100))
        name = f"3 honest nodes with {percent} % noise, 2 with the same wrong number"
        sets.append(TruthSet(name, [part], is_right=within(0.05), floors=("plurality", "median")))
    for count in (5, 20):
        rng = rng_of("liars in few records", count)
        rounds = [
            observe_round(numbers_truth(count, rng), with_liars(rng, 0.05)) for _ in range(rows // count)
        ]
        name = f"3 honest nodes with 5 % noise, 2 liars, {count} records a round"
        sets.append(TruthSet(name, rounds, is_right=within(0.05), floors=("plurality", "median")))
    return sets


def near_zero(rows: int) -> list[TruthSet]:
    """Temperatures between -1 and 1; two of five nodes are two degrees too warm."""
    sets = []
    for noise in (0.0, 0.02, 0.1):
        for about, own_noise in (("each with its noise", noise), ("with the same number", 0.0)):
            rng = rng_of("near zero", noise, about)
            warm = partial(warmer, rng, {**dict.fromkeys("abc", noise), **dict.fromkeys("de", own_noise)})
            part = observe_round(numbers_truth(rows, rng, low=-1, high=1), warm)
            name = f"-1 to 1 degrees, noise {noise}, 2 of 5 nodes + 2, {about}"
            sets.append(TruthSet(name, [part], is_right=within(0, 0.5), floors=("plurality", "median")))
    rng = rng_of("near zero, sparse")
    warm = partial(warmer, rng, dict.fromkeys(NODES, 0.02), warm="e")
    part = observe_round(numbers_truth(rows, rng, low=-1, high=1), leave_empty(rng, 0.3, warm))
    name = "-1 to 1 degrees, noise 0.02, 1 of 5 nodes + 2, 30 % of cells empty"
    return [*sets, TruthSet(name, [part], is_right=within(0, 0.5))]


def faulty_nodes(rows: int) -> list[TruthSet]:
    """One of five nodes is biased, stuck, or has another unit; the others have 1 % noise."""
    faults: dict[str, Callable[[float], float]] = {
        "10 % too high": lambda value: value * 1.1,
        "stuck at one value": lambda _: 123.4,
        "a thousand times too high": lambda value: value * 1000,
        "of the wrong sign": lambda value: -value,
    }
    sets = []
    for about, fault in faults.items():
        rng = rng_of("faulty", about)
        part = observe_round(numbers_truth(rows, rng), with_fault(rng, fault))
        name = f"5 nodes with 1 % noise, one {about}"
        sets.append(TruthSet(name, [part], is_right=within(0.05), goal=0.99))
    return sets


def uneven_nodes(rows: int) -> list[TruthSet]:
    """Nodes of unequal or equal accuracy in a field of states; some lie together."""
    sets = []
    for nodes, errors, share in ((5, 0.1, 1.0), (5, 0.1, 0.3), (5, 0.3, 1.0), (5, 0.3, 0.3), (7, 0.3, 0.3)):
        rng = rng_of("lie", nodes, errors, share)
        part = observe_states(rows, rng, dict.fromkeys("abcdefg"[:nodes], errors), "ab", share)
        name = f"2 of {nodes} nodes lie together in {100 * share:.0f} % of cells, {100 * errors:.0f} % errors"
        sets.append(TruthSet(name, [part]))
    rng = rng_of("uneven")
    part = observe_states(200, rng, dict(zip("abc", (0.02, 0.4, 0.4), strict=True)))
    sets.append(TruthSet("3 nodes with 2, 40 and 40 % errors", [part]))
    for nodes in (2, 3, 5):
        for cells in (5, 20, 50, 200):
            rng = rng_of("equal", nodes, cells)
            errors_of = dict.fromkeys("abcde"[:nodes], 0.2)
            rounds = [observe_states(cells, rng, errors_of) for _ in range(max(1, rows // cells))]
            sets.append(TruthSet(f"{nodes} equal nodes with 20 % errors, {cells} cells a round", rounds))
    return sets


def colluding_nodes(rows: int) -> list[TruthSet]:
    """Most nodes lie together, which no rule can tell from honest ones."""
    sets = []
    for liars_count, nodes in ((3, 5), (4, 7)):
        rng = rng_of("collusion", nodes)
        part = observe_states(rows, rng, dict.fromkeys("abcdefg"[:nodes], 0.0), "abcd"[:liars_count], 0.3)
        sets.append(TruthSet(f"{liars_count} of {nodes} nodes lie together in 30 % of cells", [part]))
    return sets


def copiers(rows: int) -> list[TruthSet]:
    """Sources that take all from another one, its errors and gaps too, among independent ones."""
    sets = []
    for sizes, errors, told in COPIERS:
        rng = rng_of("copiers", sizes, told)
        rounds = [copied_round(2 * rows, rng, sizes, errors, told) for _ in range(2)]
        families = " and ".join(map(str, sizes))
        about = f"copiers in families of {families} with {100 * errors:.0f} % errors, 7 others with 10 %"
        sets.append(TruthSet(f"{about}, {100 * told:.0f} % of cells told", rounds))
    return sets


def copied_round(
    count: int, rng: random.Random, sizes: Sequence[int], errors: float, coverage: float
) -> Observed:
    """Return a round of families of these sizes and of seven independent sources, in a column of gates."""
    truth = {(f"r{row}", "gate"): gate(rng) for row in range(count)}
    versions: dict[str, bytes] = {}
    for family, size in enumerate([*sizes, *[1] * 7]):
        share = errors if size > 1 else 0.1
        rows = []
        for (name, _), value in truth.items():
            told = gate(rng) if rng.random() < share else value
            rows.append([name, told if rng.random() < coverage else ""])
        content = write_rows([KEY, "gate"], rows)
        versions |= {f"s{family}-{member}": content for member in range(size)}
    return Observed(versions, truth, read_table)


def gate(rng: random.Random) -> str:
    return f"{rng.choice('ABCDE')}{rng.randrange(1, 40)}"


def liars_with_history(rows: int) -> list[TruthSet]:
    sets = []
    for percent in (2, 3, 5):
        rng = rng_of("liars in sequence", percent)
        rounds = [observe_round(numbers_truth(rows, rng), with_liars(rng, percent / 100)) for _ in range(4)]
        name = f"3 honest nodes with {percent} % noise, 2 with the same wrong number, round 2 to 4"
        sets += in_sequence(name, rounds, is_right=within(0.05), floors=("plurality", "median"))
    return sets


def uneven_with_history(rows: int) -> list[TruthSet]:
    """Ten cells a round: too few to learn from in one round."""
    rng = rng_of("uneven in sequence")
    errors = dict(zip("abc", (0.02, 0.4, 0.4), strict=True))
    changed = dict(zip("abc", (0.4, 0.02, 0.02), strict=True))
    stable = [observe_states(10, rng, errors) for _ in range(rows // 5)]
    change = [observe_states(10, rng, part) for part in (errors, changed) for _ in range(rows // 10)]
    return [
        *in_sequence("3 nodes with 2, 40 and 40 % errors, 10 cells a round", stable),
        *in_sequence("the same, then 40, 2 and 2 % errors", change),
    ]


def newcomer(rows: int) -> list[TruthSet]:
    """In each of the last rounds a new node tells five cells, alone against an old node, which is right."""
    rng = rng_of("newcomer")
    old = [observe_states(rows, rng, dict.fromkeys("abc", 0.05)) for _ in range(4)]
    new = [join_node(rows, rng, f"n{number}") for number in range(8)]
    return in_sequence("a new node alone against an old one", old + new, first=len(old))


def join_node(rows: int, rng: random.Random, node: str) -> Observed:
    truth = states_truth(rows, rng)
    alone = dict(list(truth.items())[:5])
    others = {**truth, **dict.fromkeys(alone, "")}
    told = {
        "a": truth,
        "b": others,
        "c": others,
        node: {cell: other_state(rng, truth[cell]) if cell in alone else "" for cell in truth},
    }
    versions = {
        name: write_rows([KEY, "state"], [[row, value] for (row, _), value in cells.items()])
        for name, cells in told.items()
    }
    return Observed(versions, alone, read_table)


def in_sequence(name: str, rounds: Sequence[Observed], **about: Any) -> list[TruthSet]:
    """Return the rounds as those of a repository, scored from the second on, without and with history."""
    about = {"first": 1, **about}
    return [
        TruthSet(f"{name}, {history}", rounds, definition, in_sequence=True, **about)
        for history, definition in (("no history", VoteDefinition()), ("history HYBRID", HISTORY))
    ]


def rng_of(*about: object) -> random.Random:
    """Return the random numbers of a set, which do not depend on the sets before."""
    draw = _DRAW.get()
    return random.Random(f"{SEED} {about}" if not draw else f"{SEED} {draw} {about}")


@contextmanager
def draw_again(number: int) -> Iterator[None]:
    """Let `rng_of` return other random numbers, for the same sets drawn anew; 0: those of all other runs."""
    token = _DRAW.set(number)
    try:
        yield
    finally:
        _DRAW.reset(token)


def observe_round(truth: Mapping[Cell, str], observe: Observe, nodes: Sequence[str] = NODES) -> Observed:
    """Return a round in which each node observes each cell."""
    names = list(dict.fromkeys(name for name, _ in truth))
    fields = list(dict.fromkeys(field for _, field in truth))
    versions = {
        node: write_rows(
            [KEY, *fields],
            [[name, *(observe(node, field, truth[name, field]) for field in fields)] for name in names],
        )
        for node in nodes
    }
    return Observed(versions, truth, read_table)


def observe_states(
    count: int, rng: random.Random, errors: Mapping[str, float], liars: str = "", share: float = 0
) -> Observed:
    """Return a round of one field of states. The liars have the same wrong state in a `share` of cells."""
    lies: dict[int, str] = {}
    seen = dict.fromkeys(errors, -1)
    wrong = mistaken(rng, errors)

    def observe(node: str, field: str, value: str) -> str:
        seen[node] += 1
        row = seen[node]
        if row not in lies:
            lies[row] = other_state(rng, value) if rng.random() < share else ""
        return (node in liars and lies[row]) or wrong(node, field, value)

    return observe_round(states_truth(count, rng), observe, list(errors))


def mixed_truth(rows: int, rng: random.Random) -> dict[Cell, str]:
    truth = {}
    for row in range(rows):
        truth[f"r{row}", "pulls"] = str(rng.randrange(10, 10**6))
        truth[f"r{row}", "ratio"] = f"{rng.random():.4f}"
        truth[f"r{row}", "state"] = rng.choice(STATES)
    return truth


def numbers_truth(rows: int, rng: random.Random, low: float = 100, high: float = 1000) -> dict[Cell, str]:
    return {(f"r{row}", "value"): f"{rng.uniform(low, high):.6f}" for row in range(rows)}


def states_truth(rows: int, rng: random.Random) -> dict[Cell, str]:
    return {(f"r{row}", "state"): rng.choice(STATES) for row in range(rows)}


def exactly(_: str, __: str, value: str) -> str:
    return value


def leave_empty(rng: random.Random, share: float, observe: Observe) -> Observe:
    return lambda node, field, value: "" if rng.random() < share else observe(node, field, value)


def noisy(rng: random.Random, noise: float) -> Observe:
    return lambda _, __, value: f"{float(value) * (1 + rng.gauss(0, noise)):.6f}"


def with_liars(rng: random.Random, noise: float) -> Observe:
    honest = noisy(rng, noise)
    return lambda node, field, value: (
        f"{float(value) * 1.5:.6f}" if node in "de" else honest(node, field, value)
    )


def with_fault(rng: random.Random, fault: Callable[[float], float]) -> Observe:
    honest = noisy(rng, 0.01)
    return lambda node, field, value: (
        f"{fault(float(honest(node, field, value))):.6f}" if node == "e" else honest(node, field, value)
    )


def warmer(
    rng: random.Random, noise: Mapping[str, float], node: str, _: str, value: str, *, warm: str = "de"
) -> str:
    return f"{float(value) + rng.gauss(0, noise[node]) + 2 * (node in warm):.3f}"


def mistaken(rng: random.Random, errors: Mapping[str, float]) -> Observe:
    return lambda node, _, value: other_state(rng, value) if rng.random() < errors[node] else value


def other_state(rng: random.Random, value: str) -> str:
    return rng.choice([state for state in STATES if state != value])


def within(relative: float, absolute: float = 0.0) -> IsRight:
    """Return a rule by which a number is right if it is this close to the true one."""

    def is_close(_: str, found: str, wanted: str) -> bool:
        try:
            return abs(float(found) - float(wanted)) <= relative * abs(float(wanted)) + absolute
        except ValueError:
            return False

    return is_close
