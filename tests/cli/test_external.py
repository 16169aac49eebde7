"""`maoctl write|read|inspect` and `maoctl dataset external`."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from . import documents
from .conftest import Maoctl
from .gateways import RememberingGateway

DATASETS = "/registry/datasets"
RECEIPT = {
    "id": "20260131T120000.000000Z-0a1b2c3d",
    "key": "temperature",
    "dataset": "sensors",
    "received_at": "2026-01-31T12:00:00Z",
}


@pytest.mark.parametrize(
    ("typed", "sent"),
    [
        (('{"celsius": 21.5}',), {"celsius": 21.5}),
        (("warm",), "warm"),
        (("21", "--text"), "21"),
        (("-",), [1, 2]),
    ],
)
def test_write_sends_json_or_text(
    maoctl: Maoctl,
    gateway: RememberingGateway,
    monkeypatch: pytest.MonkeyPatch,
    typed: tuple[str, ...],
    sent: Any,
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"[1, 2]\n")))
    gateway.answer("POST", "/write", RECEIPT, 202)

    result = maoctl("write", "temperature", *typed)

    assert (result.code, result.out) == (0, "20260131T120000.000000Z-0a1b2c3d for sensors\n")
    (call,) = gateway.called("POST", "/write")
    assert call.body == {"key": "temperature", "value": sent}
    assert call.headers["idempotency-key"]


@pytest.mark.parametrize("value", ["1.10", "1e500", "-0.0", '[1E5, 12345678901234567890, "\\u00e4"]'])
@pytest.mark.parametrize("way", ["argument", "stdin", "file"])
def test_write_sends_json_as_it_is_spelt(
    maoctl: Maoctl,
    gateway: RememberingGateway,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    value: str,
    way: str,
) -> None:
    (tmp_path / "v.json").write_text(f"{value}\r\n", newline="")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(value.encode() + b"\n")))
    gateway.answer("POST", "/write", RECEIPT, 202)
    words = {"argument": (value,), "stdin": ("-",), "file": ("--file", str(tmp_path / "v.json"))}[way]
    typed = (
        ("--", "temperature", value)
        if value.startswith("-") and way == "argument"
        else ("temperature", *words)
    )

    assert maoctl("write", *typed).code == 0
    (call,) = gateway.called("POST", "/write")
    assert call.text == f'{{"key":"temperature","value":{value}}}'


@pytest.mark.parametrize(
    "typed",
    [
        ("NaN",),
        ('{"a": Infinity}',),
        ('"\\ud800"',),
        ("a\udcff",),
        ("9" * 5000,),
        ("-",),
        ("--file", "/nowhere/v.json"),
        (),
        ("1", "--file", "/nowhere/v.json"),
    ],
)
def test_write_refuses_what_json_cannot_hold(
    maoctl: Maoctl, gateway: RememberingGateway, monkeypatch: pytest.MonkeyPatch, typed: tuple[str, ...]
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\xff\xfe1\0")))
    result = maoctl("write", "temperature", *typed)
    assert result.code == 2
    assert "Traceback" not in result.err
    assert result.err.strip()
    assert gateway.calls == []


def test_read_and_inspect_show_numbers_as_they_are_spelt(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    value = '{"mean": 1.10, "n": [12345678901234567890, 1E500, -0.0], "t": "1.10"}'
    one = f'{{"key": "p/n", "dataset": "d", "branch": "n", "size": 99, "value": {value}}}'
    gateway.answer("POST", "/read", one)
    gateway.answer("POST", "/inspect", f'{{"items": [{one}]}}')

    for shown in (maoctl("read", "p").out, maoctl("read", "p", "-o", "json").out, maoctl("inspect").out):
        for number in ("1.10", "12345678901234567890", "1E500", "-0.0"):
            assert number in shown
    listed = maoctl("inspect", "-o", "yaml").out
    assert "mean: 1.10\n" in listed
    assert "t: '1.10'\n" in listed
    assert "size: 99\n" in listed
    assert "".join(maoctl("read", "p").out.split()) == "".join(value.split())


def test_external_keys_are_added_and_removed(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    gateway.keep(DATASETS, documents.dataset())

    assert maoctl("dataset", "external", "data", "--key", "b", "--key", "a", "--key", "b").code == 0
    assert gateway.kept[DATASETS]["data"]["external"] == ["b", "a"]
    assert maoctl("dataset", "external", "data", "--remove-key", "b").code == 0
    assert gateway.kept[DATASETS]["data"]["external"] == ["a"]
    assert maoctl("dataset", "external", "data", "--remove-key", "b").code == 3


def test_external_shows_waiting_values_and_the_reason(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    gateway.keep(DATASETS, documents.dataset())
    failure = {
        "code": "disk-full",
        "detail": "The disk is full.",
        "next": "Free space.",
        "fault": "infrastructure",
    }
    state = {"dataset": "data", "keys": ["a"], "waiting": 7, "since": documents.ago(60), "failure": failure}
    gateway.answer("GET", "/datasets/data/external", state)

    shown = maoctl("dataset", "external", "data").out

    for words in ("a", "7", "60s", "The disk is full.", "Free space."):
        assert words in shown


def test_read_and_inspect_show_insights(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    one = {"key": "probe/node-1", "dataset": "data", "branch": "node-1", "commit": "0" * 40, "size": 11}
    bad = {
        "key": "probe/node-2",
        "dataset": "data",
        "branch": "node-2",
        "problem": "insights.json is not JSON.",
    }
    gateway.answer("POST", "/read", one | {"value": {"mean": 4}})
    gateway.answer("POST", "/inspect", {"items": [one | {"value": {"mean": 4}}, bad]})

    assert json.loads(maoctl("read", "probe").out) == {"mean": 4}
    assert gateway.called("POST", "/read")[0].body == {"key": "probe"}
    listed = maoctl("inspect").out
    assert "mean=4" in listed
    assert "not JSON" in listed


def test_dataset_update_checks_a_new_remote_first(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    gateway.keep(DATASETS, documents.dataset())
    before = dict(gateway.kept[DATASETS]["data"])
    gateway.problem("POST", "/remotes/check", 422, "dataset-unreachable")

    assert maoctl("dataset", "update", "data", "--master", "/gone.git").code == 2
    assert gateway.kept[DATASETS]["data"] == before
    assert maoctl("dataset", "update", "data", "--master", "/gone.git", "--unchecked").code == 0
    assert gateway.kept[DATASETS]["data"]["master"] == "/gone.git"


def test_dataset_add_takes_lfs_and_external_options(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    gateway.answer("POST", "/remotes/check", {"master": "/d.git", "default_branch": None})
    added = maoctl("dataset", "add", "data", "/d.git", "--lfs-above", "10m", "--external", "temperature")

    assert (added.code, added.err) == (0, "dataset/data added\n")
    kept = gateway.kept[DATASETS]["data"]
    assert (kept["lfs_above"], kept["external"]) == (10 << 20, ["temperature"])
    assert maoctl("dataset", "update", "data", "--lfs-above", "1m").code == 0
    assert gateway.kept[DATASETS]["data"]["lfs_above"] == 1 << 20


def test_dataset_add_rejects_an_unreachable_remote(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    gateway.problem("POST", "/remotes/check", 422, "dataset-unreachable", next="Check it.")
    refused = maoctl("dataset", "add", "data", "/gone.git")
    assert (refused.code, gateway.kept.get(DATASETS, {})) == (2, {})
    assert "Check it. To register it anyway, use --unchecked." in refused.err
    assert maoctl("dataset", "add", "data", "/gone.git", "--unchecked").code == 0
    assert gateway.kept[DATASETS]["data"]["master"] == "/gone.git"
