"""`/channels`, `/rules`, `/heartbeats` and `/messages`."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from mao_datamgmt.notifications.channels import channel_state
from mao_datamgmt.notifications.notifier import MAX_RULES
from mao_shared.models.notification import Channel, Message, message_id
from mao_shared.store.memory import MemoryStore
from tests.datamgmt.conftest import Api, api_on
from tests.support.receivers import http_server

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
RULE: dict[str, Any] = {"name": "night", "channels": ["phone"], "failures": 3}


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    with api_on(tmp_path, MemoryStore()) as api:
        yield api


def test_rules_are_added_replaced_and_removed(api: Api) -> None:
    assert api.post("/rules", json=RULE).status_code == 201
    assert api.post("/rules", json=RULE).status_code == 409
    assert api.put("/rules/night", json=RULE | {"failures": 2}).json()["failures"] == 2
    assert api.put("/rules/other", json=RULE).status_code == 422
    assert [rule["name"] for rule in api.get("/rules").json()["items"]] == ["night"]
    assert api.run(api.app.state.manager.notifications.rules.remove("night")) is None
    assert api.get("/rules/night").json()["code"] == "rule-not-found"


@pytest.mark.parametrize(
    "wrong",
    [
        {"quiet": {"start": "22:00", "end": "07:00", "timezone": "Nowhere"}},
        {"reminder": 59},
        {"failures": 0},
        {"kinds": [""]},
        {"channels": ["../x"]},
        {"unknown": 1},
    ],
)
def test_rules_that_make_no_sense_are_refused(api: Api, wrong: dict[str, Any]) -> None:
    assert api.post("/rules", json=RULE | wrong).status_code == 422


def test_rules_are_limited(api: Api) -> None:
    for number in range(MAX_RULES):
        assert api.put(f"/rules/r{number}", json=RULE | {"name": f"r{number}"}).status_code == 200
    assert api.put("/rules/r0", json=RULE | {"name": "r0"}).status_code == 200
    assert api.put("/rules/more", json=RULE | {"name": "more"}).status_code == 409
    assert api.post("/rules", json=RULE).status_code == 409


@pytest.mark.parametrize("path", ["/channels/none", "/heartbeats/none", "/rules/none"])
def test_unknown_names_are_404(api: Api, path: str) -> None:
    assert api.get(path).status_code == 404
    if not path.startswith("/rules"):
        assert api.post(f"{path}/test").status_code == 404
        assert api.post(f"{path}/compare", json={"url": "ntfy://a/b"}).status_code == 404


@pytest.mark.parametrize("url", ["dbus://", "no url", "json://a/?template=/etc/passwd"])
def test_channels_refuse_urls_without_repeating_them(api: Api, url: str) -> None:
    answer = api.post("/channels", json={"name": "phone", "url": url})
    assert answer.json()["code"] == "channel-url-refused"
    assert "/etc/passwd" not in answer.text


def test_channel_is_added_tested_and_shown_masked(api: Api) -> None:
    pytest.importorskip("apprise", reason="made before requirements.lock had it: run `make venv`")
    with http_server() as got:
        url = f"ntfy://127.0.0.1:{got.port}/secret-topic"
        made = api.post("/channels", json={"name": "phone", "url": url})
        assert (made.status_code, made.json()["url"]) == (201, "ntfy://…")
        assert api.post("/channels", json={"name": "phone", "url": url}).status_code == 409
        assert api.post("/channels/phone/test").json() == {"delivered": True, "error": None}
        assert len(got.bodies) == 1
        got.answer = 403
        refused = api.post("/channels/phone/test").json()
    assert not refused["delivered"]
    assert "secret-topic" not in refused["error"] + api.get("/channels").text


def test_channel_url_is_compared_and_changed_without_being_shown(api: Api) -> None:
    pytest.importorskip("apprise", reason="made before requirements.lock had it: run `make venv`")
    first, second = ("ntfys://ntfy.example.org/first-topic", "jsons://lab.example.org/second-token")

    def same(url: str) -> bool:
        answer = api.post("/channels/phone/compare", json={"url": url})
        assert url not in answer.text
        return bool(answer.json()["same"])

    made = api.put("/channels/phone", json={"name": "phone", "url": first}).json()
    assert (same(first), same(second), same("ntfys://…")) == (True, False, False)
    changed = api.put("/channels/phone", json={"name": "phone", "url": second}).json()
    assert (same(first), same(second)) == (False, True)
    assert (changed["url"], changed["created_at"]) == ("jsons://…", made["created_at"])
    assert len(api.get("/channels").json()["items"]) == 1
    refused = api.put("/channels/phone", json={"name": "phone", "url": "dbus://"})
    assert refused.json()["code"] == "channel-url-refused"
    assert api.put("/channels/phone", json={"name": "mail", "url": first}).status_code == 422
    assert same(second)


def test_heartbeat_address_is_compared_without_being_shown(api: Api) -> None:
    with http_server() as got:
        url = f"http://127.0.0.1:{got.port}/ping/secret-id"
        api.put("/heartbeats/crawl", json={"url": url})
        for other in (f"{url}x", api.get("/heartbeats/crawl").json()["url"], url):
            answer = api.post("/heartbeats/crawl/compare", json={"url": other})
            assert answer.json() == {"same": other == url}


def test_heartbeat_is_set_tested_and_shown_masked(api: Api) -> None:
    with http_server() as got:
        url = f"http://127.0.0.1:{got.port}/ping/secret-id"
        assert api.put("/heartbeats/crawl", json={"url": url}).json()["url"].endswith("/…")
        assert api.post("/heartbeats/crawl/test").json()["delivered"]
        assert got.events() == ["/ping/secret-id"]
    assert "secret-id" not in api.get("/heartbeats").text


@pytest.mark.parametrize("url", ["ftp://a/", "https://u:p@a/", "http://", "http://169.254.169.254/"])
def test_heartbeat_addresses_that_are_refused(api: Api, url: str) -> None:
    assert api.put("/heartbeats/crawl", json={"url": url}).status_code == 422


def test_messages_are_listed_by_channel_and_alarm(api: Api) -> None:
    records = api.app.state.manager.notifications.channels.messages
    for about, channel in (("a1", "mail"), ("a1", "phone"), ("a2", "mail")):
        one = Message(
            id=message_id(about, channel, "raised"),
            channel=channel,
            event="raised",
            about=about,
            created_at=NOW,
            delivered_at=NOW,
        )
        api.run(records.create(one.id, one))

    def listed(**params: str) -> list[str]:
        return [message["id"] for message in api.get("/messages", params=params).json()["items"]]

    assert listed() == ["a1~mail~raised", "a1~phone~raised", "a2~mail~raised"]
    assert listed(channel="mail") == ["a1~mail~raised", "a2~mail~raised"]
    assert listed(about="a1", channel="phone") == ["a1~phone~raised"]


@pytest.mark.parametrize("limit", [1, 2, 100])
def test_messages_that_wait_are_listed_page_by_page(api: Api, limit: int) -> None:
    records = api.app.state.manager.notifications.channels.messages
    now = datetime.now(UTC)  # they are not due yet, so the running sender leaves them alone
    outcomes: list[dict[str, Any]] = [{}, {"delivered_at": NOW}, {"given_up": True}]
    for number in range(7):
        one = Message(
            id=message_id(f"a{number}", "gone", "raised"),
            channel="gone",
            event="raised",
            about=f"a{number}",
            created_at=now,
            not_before=now + timedelta(minutes=30),
            **outcomes[number % 3],
        )
        api.run(records.create(one.id, one))
    found: list[str] = []
    more: dict[str, str] = {}
    while True:
        page = api.get("/messages", params={"waiting": "true", "limit": limit, **more}).json()
        found += [message["about"] for message in page["items"]]
        assert len(page["items"]) <= limit
        if page["cursor"] is None:
            break
        more = {"cursor": page["cursor"]}
    assert found == ["a0", "a3", "a6"]


def test_channel_state_tells_the_last_delivery_and_the_next_try() -> None:
    channel = Channel(name="mail", service="mailto", sealed="", created_at=NOW)

    def message(number: int, **fields: Any) -> Message:
        about = f"a{number}"
        given = {"channel": "mail", "event": "raised", "about": about, "created_at": NOW}
        return Message(id=message_id(about, "mail", "raised"), **given | fields)

    soon = NOW + timedelta(minutes=8)
    sent = [message(1, delivered_at=NOW), message(2, delivered_at=soon)]
    waiting = message(3, tries=3, not_before=soon, last_error="HTTP 503", created_at=soon)
    later = message(4, created_at=soon + timedelta(minutes=1))
    found = channel_state(channel, [later, *sent, waiting])
    assert (found.waiting, found.delivered_at, found.tries, found.next_try_at) == (2, soon, 3, soon)
    idle = channel_state(channel, [])
    assert (idle.delivered_at, idle.tries, idle.next_try_at) == (None, 0, None)
