"""Lists in documents, objects in records, keys in two spellings, rows that nodes lack, logs without a key."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from bench.report import Measure
from mao_shared.models.round import FieldRule, FileRule, VoteDefinition

from .compare import compare
from .made_up import KEY, NODES, read_table, rng_of, states_truth, within
from .sets import ABSENT, Cell, Found, Observed, TruthSet, read_csv, write_rows

Entry = dict[str, Any]
ENTRIES = 12
NEW_DATE = "2026-11-30"
WHERE_ALL_IS_TRUE = (
    "what one node has alone, and hardly can have seen alone, is left out as if made up; here nothing is"
)
Edit = Callable[[str, list[Entry], random.Random], list[Entry]]
"""What a node has instead of a list: `(node, entries, random numbers)`."""


def measure(folder: Path, *, quick: bool) -> list[Measure]:
    """Score the vote on structured files. `quick`: fewer files of each kind."""
    return compare(structures(3 if quick else 15), folder)


def structures(files: int) -> list[TruthSet]:
    """Return a set of each kind of structured file."""
    return [*lists(files), *objects(files), *keys(files), *rows(files), *logs(files)]


def lists(files: int) -> list[TruthSet]:
    """Lists of objects that have a name, in a document; each node has some wrong numbers of its own."""
    edits: dict[str, tuple[str, Edit]] = {
        "as it is": ("abcde", lambda _, entries, __: entries),
        "with a new entry in front at one of 5 nodes": ("abcde", entries_in_front("e")),
        "with a new entry in front at one of 2 nodes": ("ab", entries_in_front("b")),
        "with one and two new entries in front at 2 of 3 nodes": ("abc", entries_in_front("bcc")),
        "without its first entry at one of 5 nodes": (
            "abcde",
            lambda node, entries, _: entries[node == "e" :],
        ),
        "in another order at each of 5 nodes": ("abcde", shuffled),
    }
    declared = VoteDefinition(files=[FileRule(fields={"/releases": FieldRule(key=["name"])})])
    sets = []
    for definition, key in ((VoteDefinition(), ""), (declared, ", key declared")):
        for about, (nodes, edit) in edits.items():
            rng = rng_of("list", about)
            rounds = [list_round(nodes, edit, rng) for _ in range(files)]
            name = f"list of objects {about}{key}"
            sets.append(TruthSet(name, rounds, definition, path="a.json", goal=0.99))
    as_set = VoteDefinition(files=[FileRule(fields={"/tags": FieldRule(type="set")})])
    for definition, key in ((VoteDefinition(), ", set not declared"), (as_set, ", set declared")):
        rng = rng_of("set of tags")
        rounds = [tags_round(rng) for _ in range(files)]
        name = f"list of tags in another order at each of 5 nodes, one more at one{key}"
        sets.append(TruthSet(name, rounds, definition, path="a.json", goal=0.99))
    rng = rng_of("ranking")
    rounds = [ranking_round(rng) for _ in range(files)]
    sets.append(
        TruthSet("ranking with two neighbours swapped at 2 of 5 nodes", rounds, path="a.json", goal=0.99)
    )
    return sets


def list_round(nodes: str, edit: Edit, rng: random.Random) -> Observed:
    """Return a document with a list; a node has at most one wrong size, of an entry of its own.

    An entry that is new is in the truth if most nodes have it, and not scored if half of them do.
    """
    entries = [new_entry(f"v{number}.{rng.randrange(10)}", rng) for number in range(ENTRIES)]
    wrong = dict(zip(nodes, rng.sample(range(ENTRIES), len(nodes)), strict=True))
    versions = {}
    for node in nodes:
        own = [*entries]
        if len(nodes) > 2:
            own[wrong[node]] = {**own[wrong[node]], "size": rng.randrange(10**6)}
        versions[node] = dump_project(edit(node, own, rng))
    truth = dict(read_releases(dump_project(entries)))
    for name in ("new1", "new2"):
        having = sum(f'"{name}"'.encode() in content for content in versions.values())
        if 2 * having < len(nodes):
            truth[name, "date"] = ABSENT
        elif 2 * having > len(nodes):
            truth[name, "date"] = NEW_DATE
    return Observed(versions, truth, read_releases)


def new_entry(name: str, rng: random.Random) -> Entry:
    date = f"2026-{rng.randrange(1, 11):02}-{rng.randrange(1, 29):02}"
    return {"name": name, "date": date, "size": rng.randrange(10**6)}


def dump_project(releases: Sequence[Entry]) -> bytes:
    """Return a document with more than one list, which is no list of records."""
    people = [{"name": "Ada", "role": "owner"}, {"name": "Bob", "role": "member"}]
    document = {"project": {"name": "alpha", "licence": "MIT"}, "people": people, "releases": releases}
    return json.dumps(document, indent=1).encode()


def entries_in_front(where: str) -> Edit:
    """Return an edit that puts as many new entries in front as a node is named in `where`."""

    def edit(node: str, entries: list[Entry], _: random.Random) -> list[Entry]:
        new = [
            {"name": f"new{number}", "date": NEW_DATE, "size": 1000 + number}
            for number in range(where.count(node), 0, -1)
        ]
        return [*new, *entries]

    return edit


def shuffled(_: str, entries: list[Entry], rng: random.Random) -> list[Entry]:
    return rng.sample(entries, len(entries))


def read_releases(content: bytes) -> Found:
    """Return the fields of each entry by its name; entries that lack one are left out."""
    releases = json.loads(content).get("releases") or []
    return {
        (entry["name"], name): str(value)
        for entry in releases
        if isinstance(entry, dict) and entry.get("name")
        for name, value in entry.items()
        if name != "name" and value is not None
    }


def tags_round(rng: random.Random) -> Observed:
    tags = [f"tag{number}" for number in range(ENTRIES)]
    versions = {
        node: json.dumps({"tags": rng.sample(tags, len(tags)) + ["own"] * (node == "e")}).encode()
        for node in NODES
    }
    truth = {("tags", tag): "yes" for tag in tags} | {("tags", "own"): ABSENT}
    return Observed(versions, truth, read_tags)


def ranking_round(rng: random.Random) -> Observed:
    """Return lists whose order is scored."""
    ranking = [f"tool{number}" for number in rng.sample(range(100), ENTRIES)]
    versions = {}
    for node in NODES:
        own = [*ranking]
        if node in "de":
            at = rng.randrange(ENTRIES - 1)
            own[at : at + 2] = own[at + 1], own[at]
        versions[node] = json.dumps({"ranking": own}).encode()
    return Observed(versions, read_ranking(json.dumps({"ranking": ranking}).encode()), read_ranking)


def read_ranking(content: bytes) -> Found:
    ranking = json.loads(content).get("ranking") or []
    return {(str(place), "tool"): name for place, name in enumerate(ranking)}


def read_tags(content: bytes) -> Found:
    return {("tags", tag): "yes" for tag in json.loads(content).get("tags") or []}


def objects(files: int) -> list[TruthSet]:
    """Numbers with noise in objects of records, beside exact texts."""
    sets = []
    for suffix, percent in (("json", 0.5), ("jsonl", 0.5), ("json", 2)):
        rng = rng_of("objects", suffix, percent)
        rounds = [objects_round(rng, percent / 100, suffix) for _ in range(files)]
        name = f"numbers with {percent} % noise in objects of {suffix} records"
        close = within(4 * percent / 100)
        sets.append(
            TruthSet(name, rounds, is_right=partial(is_right_object, close), path=f"a.{suffix}", goal=0.99)
        )
    return sets


def is_right_object(close: Callable[[str, str, str], bool], name: str, found: str, wanted: str) -> bool:
    return found == wanted if name == "unit" else close(name, found, wanted)


def objects_round(rng: random.Random, noise: float, suffix: str) -> Observed:
    records = [
        {
            KEY: f"r{row}",
            "stats": {"mean": rng.uniform(10, 100), "high": {"value": rng.uniform(100, 200)}, "unit": "ms"},
        }
        for row in range(20)
    ]
    read = partial(read_objects, suffix=suffix)

    def noisy(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: noisy(part) for name, part in value.items()}
        return round(value * (1 + rng.gauss(0, noise)), 6) if isinstance(value, float) else value

    versions = {node: dump_records([noisy(record) for record in records], suffix) for node in NODES}
    return Observed(versions, read(dump_records(records, suffix)), read)


def dump_records(records: Sequence[Entry], suffix: str) -> bytes:
    if suffix == "json":
        return json.dumps(records, indent=1).encode()
    return "".join(f"{json.dumps(record)}\n" for record in records).encode()


def read_objects(content: bytes, suffix: str) -> Found:
    records = json.loads(content) if suffix == "json" else [json.loads(line) for line in content.splitlines()]
    found: dict[Cell, str] = {}
    for record in records:
        stats = record.get("stats") or {}
        high = stats.get("high") or {}
        values = {"mean": stats.get("mean"), "high": high.get("value"), "unit": stats.get("unit")}
        found |= {(record[KEY], name): str(value) for name, value in values.items() if value is not None}
    return found


def keys(files: int) -> list[TruthSet]:
    """No key is declared: a table of names and numbers, with names in other case at some nodes."""
    fold = VoteDefinition(files=[FileRule(fold=["case"])])
    as_it_is, lower, upper = str, str.lower, str.upper
    cases: list[tuple[str, Sequence[Callable[[str], str]], VoteDefinition]] = [
        ("lower case at one of 5 nodes", [as_it_is] * 4 + [lower], VoteDefinition()),
        ("lower case at one of 3 nodes", [as_it_is] * 2 + [lower], VoteDefinition()),
        ("three cases at 3 nodes", [as_it_is, lower, upper], VoteDefinition()),
        ("three cases at 3 nodes, case folded", [as_it_is, lower, upper], fold),
        ("lower case at 2 of 5 nodes, case folded", [as_it_is] * 3 + [lower] * 2, fold),
    ]
    sets = []
    for about, spellings, definition in cases:
        rng = rng_of("keys", about)
        rounds = [keys_round(spellings, rng) for _ in range(files)]
        name, known = f"key inferred, names in {about}", about != "three cases at 3 nodes"
        floors, goal = (("plurality",), 0.99) if known else ((), None)
        sets.append(TruthSet(name, rounds, definition, is_right=within(0), goal=goal, floors=floors))
    return sets


def keys_round(spellings: Sequence[Callable[[str], str]], rng: random.Random) -> Observed:
    stars = rng.sample(range(10**5), 30)
    table = [(f"Acme/Tool-{number}", count) for number, count in enumerate(stars)]
    versions = {
        node: write_rows(["repo", "stars"], [[spell(name), count] for name, count in table])
        for node, spell in zip(NODES, spellings, strict=False)
    }
    truth = {(name.lower(), "stars"): str(count) for name, count in table}
    return Observed(versions, truth, read_repositories)


def read_repositories(content: bytes) -> Found:
    cells = read_csv(content, "repo").items()
    return {(name.lower(), field): value for (name, field), value in cells if name}


def rows(files: int) -> list[TruthSet]:
    """Nodes that lack rows, and one of five that invents some, or nobody does."""
    sets = []
    for percent in (10, 30, 60):
        rng = rng_of("rows", percent)
        rounds = [rows_round(percent / 100, rng) for _ in range(files)]
        sets.append(TruthSet(f"5 nodes that each lack {percent} % of the rows; one invents 5 %", rounds))
    for percent in (10, 30, 60):
        rng = rng_of("rows", percent, "honest")
        rounds = [rows_round(percent / 100, rng, inventor="") for _ in range(files)]
        name = f"5 honest nodes that each lack {percent} % of the rows"
        sets.append(TruthSet(name, rounds, floors=("plurality of rows",), below=WHERE_ALL_IS_TRUE))
    for count in (2, 3):
        rng = rng_of("rows", count, "nodes")
        rounds = [rows_round(0.3, rng, NODES[:count], inventor="") for _ in range(files)]
        name = f"{count} nodes that each lack 30 % of the rows"
        sets.append(TruthSet(name, rounds, floors=("plurality", "plurality of rows")))
    return sets


def rows_round(
    share: float, rng: random.Random, nodes: Sequence[str] = NODES, inventor: str = "e"
) -> Observed:
    """Return a round in which the inventor, if any, has three rows that nobody else has."""
    truth = states_truth(60, rng)
    invented = {(f"x{number}", "state"): "ready" for number in range(3 if inventor else 0)}
    versions = {
        node: write_rows(
            [KEY, "state"],
            [[name, value] for (name, _), value in truth.items() if rng.random() >= share]
            + [[name, value] for (name, _), value in invented.items() if node == inventor],
        )
        for node in nodes
    }
    return Observed(versions, {**truth, **dict.fromkeys(invented, ABSENT)}, read_table)


def logs(files: int) -> list[TruthSet]:
    """Log lines without a column that tells them apart; each node lacks one, or has one more."""
    rng = rng_of("logs")
    rounds = [log_round(rng) for _ in range(files)]
    return [TruthSet("log lines without a key, each node lacks one or has one more", rounds, goal=0.99)]


def log_round(rng: random.Random) -> Observed:
    lines = [[rng.choice(("info", "warning", "error")), f"job {rng.randrange(8)} ended"] for _ in range(30)]
    versions = {}
    for node, place in zip(NODES, rng.sample(range(30), len(NODES)), strict=True):
        more = [["info", f"{node} restarted"]] if node in "de" else []
        own = [*lines[:place], *more, *lines[place + (not more) :]]
        versions[node] = write_rows(["level", "message"], own)
    return Observed(versions, read_lines(write_rows(["level", "message"], lines)), read_lines)


def read_lines(content: bytes) -> Found:
    """Return each line by its number."""
    return {(str(number), "line"): line for number, line in enumerate(content.decode().splitlines()[1:])}
