"""What `maoctl dataset get|show|push` tell of commits that wait for a remote."""

from __future__ import annotations

import json
from pathlib import Path

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


def test_get_says_how_many_wait_and_why(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    gateway.keep("/registry/datasets", documents.dataset(), documents.dataset("other"))
    gateway.answer("GET", "/datasets", {"items": [status(WAITS)], "cursor": None})
    gateway.answer("GET", "/datasets/data", status(WAITS))

    head, data, other = maoctl("dataset", "get", "-o", "wide").out.splitlines()

    assert "WAITING" in head
    assert "WHY" in head
    assert " 20 " in data
    assert "The remote refused the push: no." in data
    assert "refused" not in other
    one = json.loads(maoctl("dataset", "get", "data", "-o", "json").out)
    assert one["status"]["outbox"] == WAITS
    shown = maoctl("dataset", "show", "data").out
    assert "Allow this node to push." in shown


def test_get_goes_on_without_the_data_manager(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    gateway.keep("/registry/datasets", documents.dataset())
    for path in ("/datasets", "/datasets/data"):
        gateway.problem("GET", path, 503, "service-unavailable", detail="It is away.")

    for words in (["get"], ["get", "data"]):
        result = maoctl("dataset", *words)
        assert result.code == 0
        assert "/srv/git/data.git" in result.out
        assert "It is away." in result.err


def test_push_says_how_it_went(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    gateway.keep("/registry/datasets", documents.dataset())
    gateway.answer("POST", "/datasets/data/push", status(WAITS))

    refused = maoctl("dataset", "push", "data")

    assert refused.code == 1
    assert "20 waiting (refused)" in refused.err
    assert "Allow this node to push." in refused.err


def test_push_that_gets_through(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    gateway.keep("/registry/datasets", documents.dataset())
    gateway.answer("POST", "/datasets/data/push", status(IN_SYNC))

    done = maoctl("dataset", "push", "data")
    assert (done.code, done.err) == (0, "dataset/data is in sync with its remote\n")


def test_what_get_prints_can_be_applied(maoctl: Maoctl, gateway: RememberingGateway, tmp_path: Path) -> None:
    gateway.keep("/registry/datasets", documents.dataset())
    gateway.answer("GET", "/datasets/data", status(IN_SYNC))
    printed = maoctl("dataset", "get", "data", "-o", "yaml").out
    file = tmp_path / "data.yaml"
    file.write_text(printed)

    assert maoctl("apply", "-f", str(file)).out == "dataset/data unchanged\n"


def test_dataset_update_moves_the_clone_of_a_record_with_fields_of_a_newer_node(
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
