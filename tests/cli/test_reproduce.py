"""`maoctl run reproduce`: what it asks for, prints, and with which code it ends."""

from __future__ import annotations

import pytest

from . import documents
from .conftest import Maoctl
from .gateways import RememberingGateway, Stream, sse

OLD = "20260131T115900Z-daily-0a1b2c3d"
NEW = "20260131T120000Z-daily-11223344"


def reproduction(**found: object) -> documents.Json:
    step = documents.step(snapshot=None, reproduced=found)
    original = {"run": OLD, "step": "crawler", "snapshot": "c" * 40}
    return documents.run(NEW, trigger="reproduce", steps=[step], reproduces=original)


@pytest.fixture
def gateway_with_run(gateway: RememberingGateway) -> RememberingGateway:
    gateway.keep("/runs", documents.run(OLD), key="id")
    gateway.answer("POST", f"/runs/{OLD}/reproduce", documents.run(NEW, "queued"), 201)
    return gateway


def test_identical_files_are_exit_code_0(maoctl: Maoctl, gateway_with_run: RememberingGateway) -> None:
    gateway_with_run.stream(f"/runs/{NEW}/events", Stream([sse(reproduction(identical=3))]))
    result = maoctl("run", "reproduce", OLD, "--step", "crawler", "--wait")
    assert (result.code, result.out) == (0, "identical  3 files\n")
    (call,) = gateway_with_run.called("POST", f"/runs/{OLD}/reproduce")
    assert call.body == {"step": "crawler"}


def test_every_other_file_has_its_line_and_the_code_is_1(
    maoctl: Maoctl, gateway_with_run: RememberingGateway
) -> None:
    found = reproduction(identical=1, different=["a", "b\x1b[31m"], missing=["c"], extra=["d"], unlisted=7)
    gateway_with_run.stream(f"/runs/{NEW}/events", Stream([sse(found)]))
    result = maoctl("run", "reproduce", OLD, "--wait")
    assert result.code == 1
    assert [line.split()[0] for line in result.out.splitlines()] == [
        "different",
        "different",
        "missing",
        "extra",
        "…",
        "identical",
    ]
    assert "\x1b" not in result.out
    assert f"workspaces/{NEW}" in result.err


def test_without_wait_it_is_only_started(maoctl: Maoctl, gateway_with_run: RememberingGateway) -> None:
    result = maoctl("-o", "name", "run", "reproduce", OLD)
    assert (result.code, result.out) == (0, f"run/{NEW}\n")


def test_show_names_the_original_and_what_was_found(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    gateway.keep("/runs", reproduction(identical=2, missing=["c"]), key="id")
    result = maoctl("run", "show", NEW)
    assert OLD in result.out
    assert "2 identical, 1 missing" in result.out
