"""Which column of tables as tools write them identifies the records, with several nodes and in any order."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from random import Random
from uuid import UUID

import pytest

from mao_shared.models.round import VoteDefinition
from mao_vote import FileDecision, decide_file

Rows = list[list[object]]
Shape = Callable[[int, Random], Rows]
"""Returns the rows of a node, by its number; the random numbers are the node's own."""
NAMES = [
    f"{owner}/{tool}"
    for owner in ("acme", "beta", "corp", "dune")
    for tool in ("ant", "bee", "cat", "dog", "elk")
]
SIZES = [37 * place**2 % 9973 for place in range(1, len(NAMES) + 1)]
REPOS = list(zip(NAMES, SIZES, strict=True))
TIMES = [f"2026-01-01T{hour:02}:00" for hour in range(8)]


def noisy(size: int, rng: Random) -> int:
    return size + (rng.random() < 0.2)


def numbered(rows: Sequence[Sequence[object]]) -> Rows:
    return [[number, *row] for number, row in enumerate(rows, 1)]


def arrived(_: int, rng: Random) -> Rows:
    """Return rows that the node numbers in the order in which they arrive."""
    return numbered([[name, noisy(size, rng)] for name, size in rng.sample(REPOS, len(REPOS))])


def arrived_some(_: int, rng: Random) -> Rows:
    return numbered([[name, noisy(size, rng)] for name, size in REPOS if rng.random() < 0.85])


SHAPES: dict[str, tuple[str, tuple[str, ...], Shape]] = {
    "names and counts": ("repo,stars", ("repo",), lambda _, rng: [[n, noisy(s, rng)] for n, s in REPOS]),
    "counts and names": ("stars,repo", ("repo",), lambda _, rng: [[noisy(s, rng), n] for n, s in REPOS]),
    "counts that all move": (
        "project,pulls",
        ("project",),
        lambda node, _: [[n, s + 7 * node] for n, s in REPOS],
    ),
    "a series of each station": (
        "station,time,value",
        ("station", "time"),
        lambda _, rng: [[s, t, rng.randrange(99)] for s in ("Kiel", "Ulm", "Bonn") for t in TIMES],
    ),
    "days": (
        "pulls,date",
        ("date",),
        lambda _, rng: [[rng.randrange(9**6), f"2026-01-{d}"] for d in range(10, 30)],
    ),
    "names in other case": (
        "name,size",
        ("name",),
        lambda node, _: [[n.upper() if node % 2 else n, s] for n, s in REPOS],
    ),
    "addresses": (
        "papers,email",
        ("email",),
        lambda _, rng: [[noisy(s, rng), f"{s}@{n[:4]}.org"] for n, s in REPOS],
    ),
    "ORCID": (
        "papers,orcid",
        ("orcid",),
        lambda _, rng: [[noisy(5, rng), f"0000-0002-{s:04}-112X"] for _, s in REPOS],
    ),
    "DOI beside a title": (
        "title,doi,cited",
        ("doi",),
        lambda _, rng: [[f"On {n}", f"10.5281/z.{s}", noisy(s, rng)] for n, s in REPOS],
    ),
    "year and country": (
        "year,country,gdp",
        ("year", "country"),
        lambda _, rng: [[y, c, rng.randrange(999)] for y in (2020, 2021, 2022) for c in ("DE", "CH", "FR")],
    ),
    "id that each node numbers": ("id,repo,stars", ("repo",), arrived),
    "id that each node numbers, some rows": ("id,repo,stars", ("repo",), arrived_some),
    "number that each node gives": ("nr,title,stars", ("title",), arrived),
    "UUID made anew": (
        "uuid,title,stars",
        ("title",),
        lambda _, rng: [[UUID(int=rng.getrandbits(128)), n, noisy(s, rng)] for n, s in REPOS],
    ),
    "UUID made anew beside measurements": (
        "id,station,v",
        ("station",),
        lambda _, rng: [[UUID(int=rng.getrandbits(128)), n, round(rng.random(), 3)] for n in NAMES],
    ),
    "time of collection": (
        "timestamp,package,version",
        ("package",),
        lambda node, _: [[1767225600 + node + at, n, s] for at, (n, s) in enumerate(REPOS)],
    ),
    "text of the time of collection": (
        "collected_at,package,version",
        ("package",),
        lambda node, _: [[f"2026-01-01T00:{node:02}:{at:02}", n, s] for at, (n, s) in enumerate(REPOS)],
    ),
    "a column of one value": (
        "kind,repo,stars",
        ("repo",),
        lambda _, rng: [["npm", n, noisy(s, rng)] for n, s in REPOS],
    ),
    "ids that are shared": (
        "id,label,v",
        ("id",),
        lambda _, rng: [[s, rng.choice("ab"), rng.randrange(9)] for s in SIZES],
    ),
    "ranks": (
        "rank,name,score",
        ("name",),
        lambda _, rng: numbered(
            sorted(([n, noisy(s, rng)] for n, s in REPOS), key=lambda row: -int(str(row[1])))
        ),
    ),
    "no rows": ("id,v", ("id",), lambda _, __: []),
    "two rows": ("label,v", ("label",), lambda _, rng: [["x", rng.randrange(9)], ["y", rng.randrange(9)]]),
}


def decide(heading: str, tables: Sequence[Rows]) -> FileDecision:
    versions = {}
    for number, rows in enumerate(tables):
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows([heading.split(","), *rows])
        versions[f"n{number}"] = out.getvalue().encode()
    return decide_file("d.csv", versions, incumbent=None, definition=VoteDefinition(), weights={})


@pytest.mark.parametrize("nodes", [2, 3, 5])
@pytest.mark.parametrize("about", SHAPES)
def test_key_shapes_have_the_key_of_a_careful_person_in_any_order(about: str, nodes: int) -> None:
    heading, key, shape = SHAPES[about]
    tables = [shape(node, Random(f"{about}{node}")) for node in range(nodes)]
    found = decide(heading, tables)
    assert found.key is not None
    assert found.key.columns == key
    rng = Random(about)
    again = decide(heading, [rng.sample(rows, len(rows)) for rows in rng.sample(tables, nodes)])
    assert again.key == found.key
    assert sorted((again.content or b"").splitlines()) == sorted((found.content or b"").splitlines())


@pytest.mark.parametrize("nodes", [2, 3, 5])
@pytest.mark.parametrize(
    ("heading", "rows", "said"),
    [
        ("a,b,c,n", [["x", "p", "u", 1], ["y", "q", "w", 2]], "with so few records b or c would do as well"),
        (
            "state,level,n",
            [["ok", "a", 1], ["ok", "b", 2], ["bad", "a", 3]],
            "unique in these columns by chance",
        ),
        (
            "state,level,site,n",
            [["ok", "a", "s", 1], ["ok", "b", "t", 2], ["bad", "a", "t", 3]],
            "state, site or level, site would do as well",
        ),
        ("lat,lon,v", [[y / 4, x / 4, 0.5] for y in range(4) for x in range(4)], "lat, lon together do"),
    ],
)
def test_key_shapes_in_which_a_key_is_uncertain_say_so_with_the_others(
    heading: str, rows: Rows, said: str, nodes: int
) -> None:
    tables = [
        [[*row[:-1], row[-1] if at else f"{row[-1]}{node}"] for at, row in enumerate(rows)]
        for node in range(nodes)
    ]
    found = decide(heading, tables)
    assert found.key is not None
    assert said in found.key.unsure
    assert found.key.unsure in found.warnings


@pytest.mark.parametrize("nodes", [3, 5])
def test_key_shapes_numbers_given_by_each_node_are_doubted_where_only_a_text_is_beside_them(
    nodes: int,
) -> None:
    tables = [numbered([[name] for name in Random(node).sample(NAMES, len(NAMES))]) for node in range(nodes)]
    found = decide("id,repo", tables)
    assert found.key is not None
    assert found.key.columns == ("repo",)
    assert "id would do as well" in found.key.unsure


@pytest.mark.parametrize("first", [0, 5, 14])
def test_key_shapes_neighbours_that_change_together_do_not_make_counts_a_key(first: int) -> None:
    counts = [100 + 7 * place for place in range(20)]
    tables: list[Rows] = [
        [[count + (node + 1) * (first <= place < first + 5), "x"] for place, count in enumerate(counts)]
        for node in range(3)
    ]
    found = decide("downloads,state", tables)
    assert found.key is not None
    assert found.key.source == "position"
