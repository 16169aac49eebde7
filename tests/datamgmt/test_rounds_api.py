"""Rounds and rankings in the HTTP API, and trees crafted to exhaust a voter."""

from __future__ import annotations

import io
from functools import partial
from pathlib import Path

import pytest

import mao_git
from mao_git import Clone, Content, diff
from mao_shared.models import GROUND_TRUTH
from mao_shared.models.round import Abstention, VoteDefinition
from mao_vote import NoQuorum, find_unattested, rank_nodes, vote_round
from tests.support.git import bare_repository, git
from tests.vote.repo import TICK, commit, new_repository, vote

from .conftest import Api


def versions(bad: int) -> dict[str, dict[str, str]]:
    """Return three nodes' files of 100 records, some of n3's wrong."""
    rows = [f"k{number},{number}" for number in range(100)]
    wrong = [f"k{number},{-number - 1}" for number in range(bad)] + rows[bad:]
    return {
        node: {"d.csv": "id,v\n" + "\n".join(lines) + "\n"}
        for node, lines in (("n1", rows), ("n2", rows), ("n3", wrong))
    }


@pytest.fixture
def dataset(api: Api, tmp_path: Path) -> Clone:
    """Create a dataset `data` with two rounds on ground truth."""
    master = bare_repository(tmp_path / "master.git")
    assert api.put("/datasets/data", json={"name": "data", "master": str(master)}).status_code == 200
    clone = Clone.open(tmp_path / "node" / "datasets" / "data.git")
    first = vote(clone, versions(5), round_id="20260131T120000Z-p-s")
    second = vote(clone, versions(6), first.commit, round_id="20260131T130000Z-p-s")
    clone.move_branch(GROUND_TRUTH, second.commit, clone.tip(GROUND_TRUTH))
    return clone


def test_rounds_api_lists_rounds_in_pages(api: Api, dataset: Clone) -> None:
    page = api.get("/datasets/data/rounds", params={"limit": 1}).json()
    assert [item["round"] for item in page["items"]] == ["20260131T130000Z-p-s"]
    assert page["items"][0]["differing"] == {"n1": 0, "n2": 0, "n3": 6}
    assert page["items"][0]["abstained"] == {}
    rest = api.get("/datasets/data/rounds", params={"cursor": page["cursor"]}).json()
    assert [(item["round"], item["cells"]) for item in rest["items"]] == [("20260131T120000Z-p-s", 5)]
    assert rest["cursor"] is None


def test_rounds_api_round_its_cells_and_its_audit(api: Api, dataset: Clone) -> None:
    shown = api.get("/datasets/data/rounds/latest").json()
    assert shown["commit"] == dataset.tip(GROUND_TRUTH)
    path = "/datasets/data/rounds/20260131T12"
    assert api.get(path).json()["evidence"]["votes"]["n3"]["differing"] == 5
    page = api.get(f"{path}/cells", params={"limit": 2, "file": "d.csv"}).json()
    assert [item["key"] for item in page["items"]] == [["k0"], ["k1"]]
    rest = api.get(f"{path}/cells", params={"cursor": page["cursor"]}).json()
    assert [item["key"] for item in rest["items"]] == [["k2"], ["k3"], ["k4"]]
    told = api.get(f"{path}/cell", params={"file": "d.csv", "key": "k2", "field": "v"}).json()
    assert (told["chosen"], told["values"]["n3"]) == ("2", "-3")
    audit = api.get("/datasets/data/rounds/latest/audit").json()
    assert (audit["ok"], audit["faults"]) == (True, [])


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("rounds/2026", 422, "round-ambiguous"),
        ("rounds/none", 404, "round-not-found"),
        ("rounds/latest/cell?file=none", 404, "cell-not-found"),
        ("rounds/latest/cell?file=d.csv&key=zz&field=v", 404, "cell-not-found"),
        ("rounds?cursor=xx", 422, "cursor-invalid"),
        ("rounds?cursor=" + "1" * 40, 422, "cursor-invalid"),
        ("rounds/..%2Fx", 404, "no-such-route"),
    ],
)
def test_rounds_api_bad_questions(api: Api, dataset: Clone, path: str, status: int, code: str) -> None:
    answer = api.get(f"/datasets/data/{path}")
    assert answer.status_code == status, answer.text
    assert answer.json()["code"] == code


def add(clone: Clone, tree: str, message: str) -> str:
    """Add a foreign commit to ground truth."""
    tip = clone.tip(GROUND_TRUTH)
    assert tip is not None
    author = mao_git.Author("x", "x@example.org", TICK)
    made = clone.commit(tree, [tip], message, author)
    assert clone.move_branch(GROUND_TRUTH, made, tip)
    return made


def changed(clone: Clone, **files: str) -> str:
    """Return ground truth's tree with some files' content replaced."""
    contents = {name: Content(partial(io.BytesIO, text.encode())) for name, text in files.items()}
    tip = clone.tip(GROUND_TRUTH)
    return clone.write_tree(clone.tree(tip), contents)


def test_rounds_api_evidence_that_somebody_broke(api: Api, dataset: Clone) -> None:
    path = ".mao/rounds/20260131T150000Z-p-s.json"
    add(dataset, changed(dataset, **{path: "no evidence"}), "x\n\nMAO-Round: 20260131T150000Z-p-s\n")
    answer = api.get("/datasets/data/rounds")
    assert (answer.status_code, answer.json()["code"]) == (422, "evidence-unreadable")


@pytest.mark.parametrize("keep", [True, False])
def test_rounds_api_commits_that_no_round_made_are_told(api: Api, dataset: Clone, keep: bool) -> None:
    message = git(dataset.path, "show", "-s", "--format=%B", GROUND_TRUTH)  # with the trailer of a round
    tip = add(dataset, changed(dataset, **{"d.csv": "id,v\nk1,666\n"}), message if keep else "mine\n")
    strays = api.get("/datasets/data/rounds").json()["strays"]
    assert (strays["after"], strays["between"], strays["commits"]) == (1, 0, [tip])
    for path in ("latest", "20260131T12"):
        audit = api.get(f"/datasets/data/rounds/{path}/audit").json()
        assert not audit["ok"]
        assert audit["commit"] == audit["recomputed_commit"]
        assert audit["faults"] == [
            "1 commit on ground-truth was made by no round; newest round is 20260131T130000Z-p-s, "
            f"tip is {tip[:10]}"
        ]
    where = "/datasets/data/rounds/latest/cell"
    told = api.get(where, params={"file": "d.csv", "key": "k1", "field": "v"}).json()
    assert (told["chosen"], told["at_tip"]) == ("1", "666")
    assert "says '666', which no round decided" in told["fault"]
    gone = api.get(where, params={"file": "d.csv", "key": "k9", "field": "v"}).json()
    assert (gone["at_tip"], "has no value there" in gone["fault"]) == (None, True)
    old = api.get("/datasets/data/rounds/20260131T12/cell?file=d.csv&key=k1&field=v").json()
    assert old["fault"] is None


def test_rounds_api_commits_between_rounds_and_before_first_are_told_apart(tmp_path: Path) -> None:
    clone = new_repository(tmp_path / "r.git")
    alone = commit(clone, {"d.csv": "id,v\n"})
    first = vote(clone, versions(5), alone, round_id="1")
    own = mao_git.Author("x", "x@example.org", TICK)
    between = clone.commit(clone.tree(first.commit), [first.commit], "m", own)
    second = vote(clone, versions(6), between, round_id="2")
    found = find_unattested(clone, second.commit)
    assert found is not None
    assert (found.after, found.between, found.before, found.commits) == (0, 1, 1, [between])
    honest = find_unattested(clone, first.commit)
    assert honest is not None
    assert (honest.fault, honest.before) == (None, 1)
    assert find_unattested(clone, alone) is None


def test_rounds_api_before_first_round(api: Api, tmp_path: Path) -> None:
    master = bare_repository(tmp_path / "master.git")
    api.put("/datasets/data", json={"name": "data", "master": str(master)})
    assert api.get("/datasets/data/rounds").json()["items"] == []
    assert api.get("/datasets/data/ranking").json()["rounds"] == 0
    assert api.get("/datasets/data/spikes").json()["items"] == []
    for path in ("latest", "latest/audit", "2026"):
        answer = api.get(f"/datasets/data/rounds/{path}").json()
        assert (answer["code"], answer["detail"]) == ("round-not-found", "No round of data is decided yet.")
        assert answer["next"] == "List the open rounds: maoctl vote status data"


def test_rounds_api_node_that_corrupts_leads_ranking(api: Api, dataset: Clone) -> None:
    found = api.get("/datasets/data/ranking").json()
    assert (found["rounds"], found["items"][0]["node"], found["items"][0]["strange"]) == (2, "n3", True)
    assert (found["items"][0]["cells"], found["items"][0]["differing"]) == (200, 11)
    assert api.get("/datasets/data/ranking", params={"rounds": 1}).json()["items"][0]["differing"] == 6


def test_rounds_api_schema_of_a_round(api: Api, dataset: Clone) -> None:
    path = "/datasets/data/rounds/latest/schema"
    found = api.get(path).json()
    assert [(file["path"], file["key"]) for file in found["files"]] == [("d.csv", ["id"])]
    assert [(field["name"], field["kind"], field["nodes"]) for field in found["files"][0]["fields"]] == [
        ("v", "integer", 3)
    ]
    assert api.get(path, params={"file": "d.csv"}).json() == found
    missing = api.get(path, params={"file": ["d.csv", "none.csv"]})
    assert (missing.status_code, missing.json()["code"]) == (404, "path-not-found")
    assert api.get("/datasets/data/rounds/2025/schema").json()["code"] == "round-not-found"


def test_rounds_api_dataset_without_rounds(api: Api, tmp_path: Path) -> None:
    clone = new_repository(tmp_path / "r.git")
    assert rank_nodes(clone, commit(clone, {"a": "1"}), 50).items == []


def bomb(clone: Clone, folders: int, depth: int) -> str:
    """Commit a few objects whose nested trees expand to `folders` ** `depth` folders."""
    made = clone.tree(None)
    for _ in range(depth):
        entries = "".join(f"040000 tree {made}\t{number}\n" for number in range(folders))
        made = git(clone.path, "mktree", feed=entries)
    return git(clone.path, "commit-tree", "-m", "x", made)


def test_rounds_api_tree_that_stands_for_too_much_has_no_voice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diff, "MAX_ENTRIES", 10_000)
    clone = new_repository(tmp_path / "r.git")
    good = commit(clone, {"a": "1"})
    commits = {"n1": good, "n2": good, "n3": bomb(clone, 10, 12)}
    options = {"round_id": "r", "tick": TICK, "abstained": {}, "base": None, "definition": VoteDefinition()}
    voted = vote_round(clone, nodes=list(commits), commits=commits, **options)  # type: ignore[arg-type]
    assert isinstance(voted.evidence.abstained["n3"], Abstention)
    assert voted.evidence.abstained["n3"].reason == "unreadable"
    assert voted.evidence.decided == {"unanimous": 1}
    with pytest.raises(NoQuorum):
        vote_round(clone, nodes=["n1", "n3"], commits={"n1": good, "n3": commits["n3"]}, **options)  # type: ignore[arg-type]
