"""Agreements: the steps they cover, and the files that are trusted."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from mao_shared import agreements
from mao_shared.agreements import Agreement, AgreementFiles, make_agreement, refusal_reason, step_digest
from mao_shared.errors import MaoError
from mao_shared.models import (
    DatasetRef,
    Enrolment,
    Limits,
    Privileges,
    ResolvedImage,
    ResolvedStep,
    Retry,
    VoteDefinition,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
IMAGE = ResolvedImage(name="lab/t:1", pinned="lab/t@sha256:" + "a" * 64, platform="linux/amd64")
OUTPUT = DatasetRef(name="d", master="/srv/d.git", branch="n")
INPUT = DatasetRef(name="i", master="/srv/i.git", branch="ground-truth")


def step(**changes: Any) -> ResolvedStep:
    fields: dict[str, Any] = {"name": "t", "tool": "t", "image": IMAGE, "output": OUTPUT}
    return ResolvedStep(**(fields | changes))


def enrolment(*steps: ResolvedStep, pipeline: str = "p", node: str = "n") -> Enrolment:
    return Enrolment(pipeline=pipeline, node=node, steps=list(steps), pipeline_revision=1, enrolled_at=NOW)


def agreed(*in_turn: ResolvedStep) -> Agreement:
    """Return the agreement after enrolling in these steps one after the other."""
    agreement: Agreement | None = None
    for step in in_turn:
        agreement = make_agreement(enrolment(step), NOW, agreement)
    assert agreement is not None
    return agreement


@pytest.mark.parametrize(
    "changes",
    [
        {"image": IMAGE.model_copy(update={"pinned": "lab/t@sha256:" + "b" * 64})},
        {"command": ["sh", "-c", "id"]},
        {"env": {"LD_PRELOAD": "/usr/src/app/data/x.so"}},
        {"limits": Limits(time=86400)},
        {"limits": Limits(memory=2 * 1024**3)},
        {"network": "host"},
        {"network": "none"},
        {"privileges": Privileges(user="root")},
        {"privileges": Privileges(user="1000:1000")},
        {"privileges": Privileges(capabilities=["SYS_ADMIN"])},
        {"privileges": Privileges(new_privileges=True)},
        {"input": INPUT},
        {"output": OUTPUT.model_copy(update={"name": "other"})},
        {"output": OUTPUT.model_copy(update={"master": "/srv/other.git"})},
        {"output": OUTPUT.model_copy(update={"branch": "ground-truth"})},
        {"output": OUTPUT.model_copy(update={"vote": VoteDefinition(quorum="UNTIL", quorum_percentage=100)})},
        {"name": "another"},
        {"tool": "another"},
        {"allow_empty": True},
    ],
)
def test_agreements_whatever_of_a_step_differs_is_not_agreed(changes: dict[str, Any]) -> None:
    assert refusal_reason(agreed(step()), "n", "p", step()) is None
    assert refusal_reason(agreed(step()), "n", "p", step(**changes)) is not None


def test_agreements_step_is_agreed_after_roundtrip() -> None:
    wide = step(privileges=Privileges(user="root", capabilities=["NET_RAW"]), network="host", input=INPUT)
    again = ResolvedStep.model_validate_json(wide.model_dump_json(exclude_none=True))
    assert refusal_reason(agreed(wide), "n", "p", again) is None


def test_agreements_ignore_retries_and_order_of_variables() -> None:
    known = agreed(step(env={"A": "1", "B": "2"}, retry=Retry(attempts=5)))
    assert refusal_reason(known, "n", "p", step(env={"B": "2", "A": "1"})) is None


def test_agreements_step_counts_for_its_own_pipeline_and_node_alone() -> None:
    known = agreed(step())
    assert refusal_reason(known, "n", "q", step())
    assert refusal_reason(known, "other", "p", step())
    renamed = known.model_copy(update={"pipeline": "q"})  # as if the file had been copied
    assert refusal_reason(renamed, "n", "q", step())


def test_agreements_digest_stays_the_same_from_version_to_version() -> None:
    """A changed digest would require renewed consent to every enrolment of every node."""
    wide = step(command=["a"], env={"X": "1"}, input=INPUT, privileges=Privileges(user="root"))
    assert step_digest("n", "p", step()) == "48351d0d2d3c2101d77ffdc0c994dede19ebc87f462fa7115a9b18174317dbd6"
    assert step_digest("n", "p", wide) == "e00567213cf21487a7d64c51696d0320acd97da94d0f28607aeb8bf1006be966"


def test_agreements_earlier_steps_lose_revoked_privileges() -> None:
    old, new = step(command=["old"]), step(command=["new"])
    assert refusal_reason(agreed(old, new), "n", "p", old) is None
    root = step(privileges=Privileges(user="root"))
    assert refusal_reason(agreed(root), "n", "p", root) is None
    assert "user root" in (refusal_reason(agreed(root, new), "n", "p", root) or "")
    root_as_well = step(command=["new"], privileges=Privileges(user="root"))
    assert refusal_reason(agreed(root, root_as_well), "n", "p", root) is None
    other_tool = root_as_well.model_copy(update={"tool": "another"})
    assert refusal_reason(agreed(root, other_tool), "n", "p", root), "granted to another tool"


def test_agreements_withdrawal_refuses_runs_until_next_enrolment() -> None:
    gone = agreed(step(), step(command=["new"])).model_copy(update={"withdrawn": True})
    assert refusal_reason(gone, "n", "p", step(command=["new"]))
    assert gone.granted == set()
    back = make_agreement(enrolment(step(command=["newest"])), NOW, gone)
    assert refusal_reason(back, "n", "p", step()) is None, "for 'run reproduce'"


def test_agreements_include_own_branch_for_late_ground_truth() -> None:
    declared = step(input=INPUT, on_late_truth="own")
    own = declared.model_copy(update={"input": INPUT.model_copy(update={"branch": "n"})})
    assert refusal_reason(agreed(declared), "n", "p", own) is None
    assert refusal_reason(agreed(step(input=INPUT)), "n", "p", own)
    elsewhere = declared.model_copy(update={"input": INPUT.model_copy(update={"branch": "m"})})
    assert refusal_reason(agreed(declared), "n", "p", elsewhere)


def test_agreements_history_is_bounded_to_the_newest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agreements, "MAX_AGREED_STEPS", 3)
    steps = [step(command=[str(number)]) for number in range(5)]
    known = agreed(*steps)
    assert [refusal_reason(known, "n", "p", s) is None for s in steps] == [
        False,
        False,
        True,
        True,
        True,
    ]


def test_agreements_renewing_the_same_adds_nothing() -> None:
    assert len(agreed(step(), step(), step()).steps) == 1


# Files.


@pytest.fixture
def files(tmp_path: Path) -> AgreementFiles:
    kept = AgreementFiles(tmp_path / "agreements")
    kept.agree(enrolment(step()), NOW)
    return kept


def test_agreements_files_are_the_nodes_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        kept = AgreementFiles(tmp_path / "agreements")
        kept.agree(enrolment(step()), NOW)
        kept.take_over([], {}, ["m"], NOW)
    finally:
        os.umask(before)
    assert kept.directory.stat().st_mode & 0o7777 == 0o700
    assert {path.stat().st_mode & 0o7777 for path in kept.directory.iterdir()} == {0o600}


def _others_may_write(path: Path) -> None:
    path.chmod(0o622)


def _group_may_write(path: Path) -> None:
    path.chmod(0o660)


def _folder_others_may_write(path: Path) -> None:
    path.parent.chmod(0o777)


def _a_link(path: Path) -> None:
    path.rename(path.with_suffix(".real"))
    path.symlink_to(path.with_suffix(".real"))


def _a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


def _a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _torn(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def _of_a_later_version(path: Path) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 2}))


def _too_large(path: Path) -> None:
    with path.open("a") as file:
        file.write(" " * agreements.MAX_FILE_BYTES)


def _of_another_user(path: Path) -> None:
    os.chown(path, 10001, 10001)


SPOILT = [
    _others_may_write,
    _group_may_write,
    _folder_others_may_write,
    _a_link,
    _a_pipe,
    _a_folder,
    _torn,
    _of_a_later_version,
    _too_large,
    pytest.param(
        _of_another_user, marks=pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
    ),
]


@pytest.mark.parametrize("spoil", SPOILT)
def test_agreements_unsafe_file_is_refused_with_reason(files: AgreementFiles, spoil: Any) -> None:
    files.agree(enrolment(step(), pipeline="q"), NOW)
    spoil(files.path("p"))
    with pytest.raises(MaoError) as refused:
        files.read("p")
    assert (refused.value.code, str(files.directory) in refused.value.detail) == ("agreement-unusable", True)
    assert refused.value.next
    if spoil is not _folder_others_may_write:
        assert files.read("q") is not None, "the others are not affected"


@pytest.mark.parametrize("spoil", [_torn, _others_may_write, _a_link, _a_pipe])
def test_agreements_new_agreement_replaces_damaged_file(files: AgreementFiles, spoil: Any) -> None:
    spoil(files.path("p"))
    files.agree(enrolment(step(command=["new"])), NOW)
    found = files.read("p")
    assert found is not None
    assert [s.digest for s in found.steps] == [step_digest("n", "p", step(command=["new"]))]


def test_agreements_fields_of_a_later_version_are_passed_over(files: AgreementFiles) -> None:
    path = files.path("p")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"comment": "from 2031"}))
    found = files.read("p")
    assert found is not None
    assert refusal_reason(found, "n", "p", step()) is None


def test_agreements_only_names_of_pipelines_name_files(files: AgreementFiles) -> None:
    for name in ("../p", ".trusted", "a/b", ""):
        with pytest.raises(ValueError, match="not a pipeline name"):
            files.path(name)


def test_agreements_taking_over_keeps_what_was_agreed_to_meanwhile(files: AgreementFiles) -> None:
    assert not files.is_taken_over()
    old = [enrolment(step(command=["old"])), enrolment(step(), pipeline="q")]
    files.take_over(old, {"q": [step(command=["older"])]}, ["m"], NOW)
    assert files.is_taken_over()
    assert files.trusted() == {"m"}
    here, there = files.read("p"), files.read("q")
    assert here is not None
    assert there is not None
    assert refusal_reason(here, "n", "p", step(command=["old"]))
    assert refusal_reason(there, "n", "q", step()) is None
    assert refusal_reason(there, "n", "q", step(command=["older"])) is None, "a run of before the renewal"


def test_agreements_close_removes_permissions_of_others(files: AgreementFiles) -> None:
    files.agree(enrolment(step(), pipeline="q"), NOW)
    files.path("p").chmod(0o644)
    files.path("q").chmod(0o666)
    files.directory.chmod(0o755)
    files.close()
    modes = [path.stat().st_mode & 0o777 for path in (files.directory, files.path("p"), files.path("q"))]
    assert modes == [0o700, 0o600, 0o666]
    with pytest.raises(MaoError):
        files.read("q")


def test_agreements_withdrawing_says_whether_there_was_something(files: AgreementFiles) -> None:
    assert files.withdraw("p")
    assert not files.withdraw("p")
    assert not files.withdraw("never")
    files.agree(enrolment(step()), NOW)
    _torn(files.path("p"))
    assert files.withdraw("p")
    assert files.read("p") is None
