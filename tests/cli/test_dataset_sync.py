"""`maoctl dataset get|show|push|acknowledge|resolve|alone|set-aside`: this node's clone and its remote."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from . import documents
from .conftest import Maoctl
from .gateways import RememberingGateway

WAITS = {
    "state": "refused",
    "waiting": 20,
    "since": "2026-01-31T11:00:00Z",
    "code": "push-refused",
    "detail": "The remote refused the push: no.",
    "next": "Allow this node to push.",
    "tries": 3,
    "next_try_at": "2026-01-31T12:30:00Z",
}
IN_SYNC = dict.fromkeys(WAITS) | {"state": "in-sync", "waiting": 0, "tries": 0}


def status(outbox: object) -> dict[str, object]:
    return documents.dataset_status(unpushed=20, outbox=outbox)


def test_dataset_get_shows_waiting_pushes_and_the_reason(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    gateway.keep("/registry/datasets", documents.dataset(), documents.dataset("other"))
    gateway.answer("GET", "/datasets", {"items": [status(WAITS)], "cursor": None})
    gateway.answer("GET", "/datasets/data", status(WAITS))

    head, data, other = maoctl("dataset", "get", "-o", "wide").out.splitlines()

    assert "UNPUSHED" in head
    assert "REASON" in head
    assert " 20 " in data
    assert "The remote refused the push: no." in data
    assert "refused" not in other
    one = json.loads(maoctl("dataset", "get", "data", "-o", "json").out)
    assert one["status"]["outbox"] == WAITS
    shown = maoctl("dataset", "show", "data").out
    assert "Allow this node to push." in shown


def test_dataset_get_works_without_the_data_manager(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    gateway.keep("/registry/datasets", documents.dataset())
    for path in ("/datasets", "/datasets/data"):
        gateway.problem("GET", path, 503, "service-unavailable", detail="It is away.")

    for words in (["get"], ["get", "data"]):
        result = maoctl("dataset", *words)
        assert result.code == 0
        assert "/srv/git/data.git" in result.out
        assert "It is away." in result.err


def test_dataset_push_reports_a_refusal(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    gateway.keep("/registry/datasets", documents.dataset())
    gateway.answer("POST", "/datasets/data/push", status(WAITS))

    refused = maoctl("dataset", "push", "data")

    assert refused.code == 1
    assert "20 unpushed (refused)" in refused.err
    assert "Allow this node to push." in refused.err


def test_dataset_push_reports_success(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    gateway.keep("/registry/datasets", documents.dataset())
    gateway.answer("POST", "/datasets/data/push", status(IN_SYNC))

    done = maoctl("dataset", "push", "data")
    assert (done.code, done.err) == (0, "dataset/data is in sync with its remote\n")


def test_dataset_get_yaml_can_be_applied(maoctl: Maoctl, gateway: RememberingGateway, tmp_path: Path) -> None:
    gateway.keep("/registry/datasets", documents.dataset())
    gateway.answer("GET", "/datasets/data", status(IN_SYNC))
    printed = maoctl("dataset", "get", "data", "-o", "yaml").out
    file = tmp_path / "data.yaml"
    file.write_text(printed)

    assert maoctl("apply", "-f", str(file)).out == "dataset/data unchanged\n"


def test_dataset_update_moves_the_clone_of_a_newer_record(
    maoctl: Maoctl, gateway: RememberingGateway
) -> None:
    gateway.keep("/registry/datasets", documents.dataset(colour="blue"))
    for method, path in (("POST", "/remotes/check"), ("GET", "/datasets/data"), ("PUT", "/datasets/data")):
        remote = {"master": "/new.git", "default_branch": None}
        gateway.answer(method, path, remote if method == "POST" else documents.dataset_status())

    result = maoctl("dataset", "update", "data", "--master", "/new.git")

    assert result.code == 0, result.err
    [moved] = gateway.called("PUT", "/datasets/data")
    assert (moved.body["master"], "colour" in moved.body) == ("/new.git", False)


DONE = {"name": "data", "branch": "node-1", "commit": "a" * 40, "rescued": ["refs/mao/rescued/node-1/x"]}


@pytest.mark.parametrize("how", ["merge", "replay", "take-theirs"])
def test_resolve_sends_the_chosen_strategy(maoctl: Maoctl, gateway: RememberingGateway, how: str) -> None:
    gateway.answer("POST", "/datasets/data/resolve", {**DONE, "how": how, "pushed": True, "failure": None})
    result = maoctl("dataset", "resolve", "data", f"--{how}")
    assert result.code == 0, result.err
    assert result.out == "node-1 is at aaaaaaaaaa, pushed\n"
    assert "refs/mao/rescued/node-1/x" in result.err
    assert gateway.calls[-1].body == {"how": how}


@pytest.mark.parametrize("options", [[], ["--merge", "--replay"]])
def test_resolve_takes_exactly_one_strategy(
    maoctl: Maoctl, gateway: RememberingGateway, options: list[str]
) -> None:
    result = maoctl("dataset", "resolve", "data", *options)
    assert result.code == 2
    assert not gateway.calls


def test_set_aside_prints_the_new_place(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    done = {"name": "data", "path": "/d/aside/data-1/data.git", "remote": "/old.git", "unpushed": 2}
    gateway.answer("POST", "/datasets/data/set-aside", done)
    result = maoctl("dataset", "set-aside", "data")
    assert (result.code, result.out) == (0, "/d/aside/data-1/data.git\n")
    assert "2 commits in it were never pushed to /old.git" in result.err


def test_dataset_alone_needs_confirmation(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    gateway.answer("GET", "/registry/datasets/data", {"name": "data", "master": "/shared.git"})
    asked = maoctl("dataset", "alone", "data")
    assert asked.code == 2
    assert "become ground truth at /shared.git at once" in asked.err
    assert not [call for call in gateway.calls if call.method == "POST"]
    gateway.answer("POST", "/datasets/data/alone", documents.dataset_status())
    done = maoctl("dataset", "alone", "data", "--yes")
    assert done.code == 0, done.err
    assert "this node alone now decides its ground truth" in done.err
