"""`maoctl dataset resolve`, `alone` and `set-aside`."""

from __future__ import annotations

import pytest

from . import documents
from .conftest import Maoctl
from .gateways import RememberingGateway

DONE = {"name": "data", "branch": "node-1", "commit": "a" * 40, "rescued": ["refs/mao/rescued/node-1/x"]}


@pytest.mark.parametrize("how", ["merge", "replay", "take-theirs"])
def test_resolve(maoctl: Maoctl, gateway: RememberingGateway, how: str) -> None:
    gateway.answer("POST", "/datasets/data/resolve", {**DONE, "how": how, "pushed": True, "failure": None})
    result = maoctl("dataset", "resolve", "data", f"--{how}")
    assert result.code == 0, result.err
    assert result.out == "node-1 is at aaaaaaaaaa, pushed\n"
    assert "refs/mao/rescued/node-1/x" in result.err
    assert gateway.calls[-1].body == {"how": how}


@pytest.mark.parametrize("options", [[], ["--merge", "--replay"]])
def test_one_way_only(maoctl: Maoctl, gateway: RememberingGateway, options: list[str]) -> None:
    result = maoctl("dataset", "resolve", "data", *options)
    assert result.code == 2
    assert not gateway.calls


def test_set_aside_says_where_it_is_now(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    done = {"name": "data", "path": "/d/aside/data-1/data.git", "remote": "/old.git", "unpushed": 2}
    gateway.answer("POST", "/datasets/data/set-aside", done)
    result = maoctl("dataset", "set-aside", "data")
    assert (result.code, result.out) == (0, "/d/aside/data-1/data.git\n")
    assert "2 commits there were never pushed to /old.git" in result.err


def test_going_alone_is_asked_for_and_says_where(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    gateway.answer("GET", "/registry/datasets/data", {"name": "data", "master": "/shared.git"})
    asked = maoctl("dataset", "alone", "data")
    assert asked.code == 2
    assert "becomes ground truth at /shared.git, at once" in asked.err
    assert not [call for call in gateway.calls if call.method == "POST"]
    gateway.answer("POST", "/datasets/data/alone", documents.dataset_status())
    done = maoctl("dataset", "alone", "data", "--yes")
    assert done.code == 0, done.err
    assert "this node alone decides its ground truth now" in done.err
