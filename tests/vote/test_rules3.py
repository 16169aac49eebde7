"""Rounds decided by version 3 of the rules: the same commits as the program made that decided them."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from mao_git import Clone
from mao_shared.models.round import Abstention, VoteDefinition
from mao_vote import audit_round, find_round, vote_round

from .repo import TICK, commit, new_repository

NODES = ("a", "b", "c", "d", "e")
COMMITS = {
    "NONE": ("d444a71bd56a57658fc9ffe3015daeab49e965c6", "551843def9609a69892af520760845ec8da526bf"),
    "HYBRID": ("06ee50d497de747e212e2485374808b6bb5eda72", "1b0d9ac14dd58255dcd4d0bd4879f07337929d97"),
}
"""History rule → the commits of two rounds, as the program e29b8802 made them by rules 3."""


UNREADABLE = {"twice.json": '[{"id": 1, "id": 2}]', "quote.csv": 'id,v\n1,"2\n'}
"""Without those for which the evidence has words of Python's parsers, which depend on its version."""
SAME = {"json": '[{"id": 1, "v": %d}]', "csv": "id,v\n1,%d\n"}


def versions(seed: int) -> dict[str, dict[str, str]]:
    """Return files of five nodes that differ in every way that the rules distinguish."""
    rng = random.Random(seed)
    nodes = {}
    for number, node in enumerate(NODES):
        rows = [
            f"r{row},{rng.choice([row, row, row + 0.5])},{rng.choice(['x', 'x', 'y', ''])},1.{row}0"
            for row in range(40)
            if rng.random() > 0.1
        ]
        records = [
            {"name": f"n{i}", "v": rng.choice([1, 1, 2]), "deep": {"a": [i, rng.choice([1, 1, 3])]}}
            for i in range(20)
        ]
        entries = [{"id": i, "when": rng.choice(["1", "1", "2"])} for i in range(rng.choice([5, 5, 6]))]
        nodes[node] = {
            "table.csv": "id,number,word,version\n" + "\n".join(rows) + "\n",
            "log.csv": "t;v\n" + "".join(f"{rng.choice([1, 2])};{i},5\n" for i in range(9)),
            "lines.jsonl": "".join(json.dumps(record) + "\n" for record in records),
            "list.json": json.dumps(records, indent=2),
            "document.json": json.dumps({"count": rng.choice([100, 101, 250]), "entries": entries}),
            "blob.bin": rng.choice(["one", "two"]),
            "same.csv": "a,b\n1,2\n",
            "kept.csv": f"version https://git-lfs.github.com/spec/v1\noid sha256:{number % 2:064}\nsize 5\n",
        }
        if number == 3:
            nodes[node]["own.txt"] = "only here"
            for name, text in UNREADABLE.items():
                nodes[node][name] = text
        else:
            nodes[node] |= {name: SAME[name.partition(".")[2]] % (seed + number % 2) for name in UNREADABLE}
    return nodes


def two_rounds(clone: Clone, definition: VoteDefinition) -> tuple[str, str]:
    base = None
    commits = []
    for number in (1, 2):
        voted = vote_round(
            clone,
            round_id=f"20260131T12000{number}Z-p-s",
            tick=TICK,
            nodes=[*NODES, "late"],
            commits={node: commit(clone, files) for node, files in versions(number).items()},
            abstained={"late": Abstention(reason="late", detail="published after the cut-off")},
            base=base,
            definition=definition,
            rules=3,
        )
        base = voted.commit
        commits.append(voted.commit)
    return commits[0], commits[1]


def test_vote_round_rules_3_commits(tmp_path: Path) -> None:
    for history, expected in COMMITS.items():
        definition = VoteDefinition.model_validate({"history": history, "weights": {"gone": 2}})
        assert two_rounds(new_repository(tmp_path / f"{history}.git"), definition) == expected


def test_audit_round_decided_by_rules_3(tmp_path: Path) -> None:
    clone = new_repository(tmp_path / "r.git")
    _, tip = two_rounds(clone, VoteDefinition(history="HYBRID"))
    audit = audit_round(clone, find_round(clone, tip, "20260131T120002Z-p-s"))
    assert audit.ok, audit.faults
    assert audit.faults == []


def test_vote_round_rules_3_names_parser_errors_in_its_words(tmp_path: Path) -> None:
    clone = new_repository(tmp_path / "r.git")
    broken, good = '[{"id": 1, "v": 1,}]', '[{"id": 1, "v": %d}]'
    files = {"a": {"d.json": good % 1}, "b": {"d.json": good % 2}, "c": {"d.json": broken}}
    with pytest.raises(json.JSONDecodeError) as failure:
        json.loads(broken)
    for rules, why in ((3, f"it is not JSON: {failure.value}"), (4, "it is not JSON")):
        voted = vote_round(
            clone,
            round_id="r1",
            tick=TICK,
            nodes=list(files),
            commits={node: commit(clone, content) for node, content in files.items()},
            abstained={},
            base=None,
            definition=VoteDefinition(),
            rules=rules,
        )
        assert voted.evidence.files[0].abstained == {"c": why}
