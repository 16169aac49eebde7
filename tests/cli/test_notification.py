"""`maoctl alarm channel`, `rule`, `heartbeat` and `messages`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Maoctl
from tests.cli.gateways import RememberingGateway

AT = "2026-01-31T12:00:00Z"
CHANNEL = {"name": "mail", "service": "mailtos", "url": "mailtos://…", "created_at": AT}
HEARTBEAT = {"pipeline": "crawl", "url": "https://hc.example.org/…", "created_at": AT}
MESSAGE = {"id": "a1~mail~raised", "channel": "mail", "event": "raised", "about": "a1", "created_at": AT}


def test_channel_add_sends_the_url_and_never_prints_it(
    maoctl: Maoctl, gateway: RememberingGateway, tmp_path: Path
) -> None:
    gateway.answer("POST", "/channels", CHANNEL, 201)
    (tmp_path / "url").write_text("mailtos://ada:sesame@lab.example\n")
    shown = maoctl("alarm", "channel", "add", "mail", "--url-file", str(tmp_path / "url"))
    assert shown.code == 0
    assert gateway.called("POST", "/channels")[0].body == {
        "name": "mail",
        "url": "mailtos://ada:sesame@lab.example",
    }
    assert "sesame" not in shown.out + shown.err


@pytest.mark.parametrize("words", [("add", "mail"), ("add", "mail", "json://a", "--url-file", "/dev/null")])
def test_channel_add_needs_one_url(maoctl: Maoctl, words: tuple[str, ...]) -> None:
    assert maoctl("alarm", "channel", *words).code == 2


@pytest.mark.parametrize(
    ("noun", "path", "record", "name"),
    [
        ("channel", "/channels", CHANNEL, "mail"),
        ("rule", "/rules", {"name": "night", "channels": ["mail"]}, "night"),
        ("heartbeat", "/heartbeats", HEARTBEAT, "crawl"),
    ],
)
def test_lists_and_single_records_are_shown(
    maoctl: Maoctl, gateway: RememberingGateway, noun: str, path: str, record: dict[str, object], name: str
) -> None:
    gateway.answer("GET", path, {"items": [record], "cursor": None})
    gateway.answer("GET", f"{path}/{name}", record)
    assert json.loads(maoctl("alarm", noun, "get", "-o", "json").out) == [{"kind": noun, **record}]
    assert json.loads(maoctl("alarm", noun, "get", name, "-o", "json").out) == {"kind": noun, **record}
    assert maoctl("alarm", noun, "get", "-o", "name").out == f"{noun}/{name}\n"
    assert name in maoctl("alarm", noun, "get").out
    assert json.loads(maoctl("alarm", noun, "show", f"{noun}/{name}", "-o", "json").out)["kind"] == noun


@pytest.mark.parametrize(
    ("noun", "path", "record", "typed"),
    [
        ("channel", "/channels", CHANNEL, "mial"),
        ("rule", "/rules", {"name": "night", "channels": ["mail"]}, "nigth"),
        ("heartbeat", "/heartbeats", HEARTBEAT, "crwal"),
    ],
)
def test_similar_names_are_suggested(
    maoctl: Maoctl, gateway: RememberingGateway, noun: str, path: str, record: dict[str, object], typed: str
) -> None:
    gateway.answer("GET", path, {"items": [record], "cursor": None})
    for verb in (("get",), ("show",), ("remove", "--yes")):
        shown = maoctl("alarm", noun, *verb, typed)
        assert shown.code == 3
        assert f"Did you mean {record.get('name', record.get('pipeline'))}?" in shown.err


def test_rule_set_sends_what_was_given(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    gateway.answer("PUT", "/rules/night", {"name": "night", "channels": ["mail"]})
    options = ["--channel", "mail", "--kind", "run-failed", "--quiet", "22:00-07:00"]
    zone = ["--timezone", "Europe/Zurich", "--reminder", "12h", "--failures", "3", "--no-ends"]
    assert maoctl("alarm", "rule", "set", "night", *options, *zone).code == 0
    assert gateway.called("PUT", "/rules/night")[0].body == {
        "name": "night",
        "channels": ["mail"],
        "kinds": ["run-failed"],
        "quiet": {"start": "22:00", "end": "07:00", "timezone": "Europe/Zurich"},
        "reminder": 43200.0,
        "failures": 3,
        "ends": False,
    }


@pytest.mark.parametrize("quiet", ["22:00", "22-7", "25:00-07:00", "07:00-07:00"])
def test_rule_set_refuses_impossible_hours(maoctl: Maoctl, quiet: str) -> None:
    assert maoctl("alarm", "rule", "set", "night", "--quiet", quiet).code != 0


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/channels/mail/test", ("channel", "test", "mail")),
        ("/heartbeats/mail/test", ("heartbeat", "test", "mail")),
    ],
)
def test_test_says_why_nothing_arrived(
    maoctl: Maoctl, gateway: RememberingGateway, path: str, words: tuple[str, ...]
) -> None:
    gateway.answer("POST", path, {"delivered": False, "error": "it answered 500"})
    shown = maoctl("alarm", *words)
    assert shown.code == 1
    assert "it answered 500" in shown.err


def test_messages_show_their_state(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    done = MESSAGE | {"id": "b", "delivered_at": AT}
    lost = MESSAGE | {"id": "c", "given_up": True, "last_error": "it answered 500"}
    gateway.answer("GET", "/messages", {"items": [MESSAGE, done, lost], "cursor": None})
    out = maoctl("alarm", "messages").out
    assert [state in out for state in ("waiting", "delivered", "given up")] == [True] * 3
