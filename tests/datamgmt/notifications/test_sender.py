"""Messages reach real servers, go to no address that is not allowed, and secrets stay secret."""

from __future__ import annotations

import json

import pytest

from mao_datamgmt.notifications.sender import MessageKind, Senders, redact, url_fault
from tests.support.receivers import http_server, smtp_server

pytest.importorskip("apprise", reason="made before requirements.lock had it: run `make venv`")
HERE = ("127.0.0.1",)


async def test_sender_mail_arrives_with_title_and_text() -> None:
    with smtp_server() as box:
        url = f"mailto://127.0.0.1:{box.port}?from=mao@lab.example&to=ada@lab.example"
        assert await Senders(HERE).send(url, "[node-1] crawl: run failed", "It failed: 1 < 2 & a") is None
        box.wait(1)
    assert box.subjects == ["[node-1] crawl: run failed"]
    assert "It failed: 1 < 2 & a" in box.mails[0].get_body(("plain",)).get_content()  # type: ignore[union-attr]
    assert "ada@lab.example" in str(box.mails[0]["To"])


async def test_sender_ntfy_gets_one_request() -> None:
    with http_server() as got:
        assert await Senders(HERE).send(f"ntfy://127.0.0.1:{got.port}/alarms", "Title", "Text") is None
    assert len(got.bodies) == 1
    assert "Text" in got.bodies[0]


@pytest.mark.parametrize("kind", ["info", "warning", "success"])
async def test_sender_tells_the_service_what_kind_of_message_it_is(kind: MessageKind) -> None:
    with http_server() as got:
        assert await Senders(HERE).send(f"json://127.0.0.1:{got.port}/lab", "Title", "Text", kind) is None
    assert json.loads(got.bodies[0])["type"] == kind


@pytest.mark.parametrize("answer", [403, 500, 302])
async def test_sender_refusal_is_an_error(answer: int) -> None:
    with http_server() as got, http_server() as other:
        got.answer, got.location = answer, f"http://127.0.0.1:{other.port}/"
        error = await Senders(HERE).send(f"ntfy://127.0.0.1:{got.port}/alarms", "Title", "Text")
    assert error
    assert other.paths == []  # a redirect is not followed


@pytest.mark.parametrize(
    ("scheme", "host"),
    [
        ("ntfy", "127.0.0.1"),
        ("ntfy", "localhost"),
        ("json", "[::1]"),
        ("json", "2130706433"),
        ("mailto", "0.0.0.0"),
        ("mailto", "169.254.169.254"),
        ("rsyslog", "127.0.0.1"),  # by UDP
    ],
)
async def test_sender_connects_to_no_address_of_this_machine(scheme: str, host: str) -> None:
    with http_server() as got:
        url = f"{scheme}://{host}:{got.port}/alarms?from=a@b.example&to=c@d.example"
        error = await Senders().send(url, "Title", "Text")
    assert error
    assert got.paths == []


async def test_sender_says_which_setting_allows_an_address() -> None:
    with http_server() as got:
        url = f"ntfy://127.0.0.1:{got.port}/alarms"
        error = str(await Senders().send(url, "Title", "Text"))
        assert "restart the node with MAO_WEBHOOK_HOSTS=HOST:PORT" in error
        assert await Senders((f"127.0.0.1:{got.port + 1}",)).send(url, "Title", "Text")
        assert await Senders((f"localhost:{got.port}",)).send(url, "Title", "Text") is None
        assert len(got.paths) == 1


@pytest.mark.parametrize(
    "url",
    [
        "dbus://",
        "syslog://",
        "gnome://",
        "file:///etc/passwd",
        "no url",
        "://x",
        "json://lab.example/?template=/etc/passwd",
        "fcm://project@key/device?keyfile=/etc/passwd",
        "mailto://lab.example?attach=/etc/passwd",
        "mailto://ada:secret@lab.example?pgp=yes&pgppub=/etc/passwd",
        "mailtos://ada:secret@lab.example?pgpprv=/etc/passwd",
        "json://lab.example/?%74emplate=/etc/passwd",
        "nosuchservice://lab.example",
        "slack://",
    ],
)
async def test_sender_refuses_urls_of_this_machine_and_wrong_ones(url: str) -> None:
    assert await Senders().check(url)


async def test_sender_check_sends_nothing() -> None:
    with http_server() as got:
        assert await Senders(HERE).check(f"ntfy://127.0.0.1:{got.port}/alarms") is None
    assert got.paths == []


SECRET = "mailtos://ada:p%40ss-word@smtp.lab.example:465/?from=mao@lab.example&to=secret-to@lab.example"


@pytest.mark.parametrize("part", ["p@ss-word", "p%40ss-word", "secret-to", "smtp.lab.example"])
def test_redact_removes_every_part_of_the_url(part: str) -> None:
    assert part not in redact(f"could not log in to {part} as {part}: {SECRET}", SECRET)


async def test_sender_error_contains_no_secret() -> None:
    with http_server() as got:
        got.answer = 401
        url = f"jsons://user-name:pass-word@127.0.0.1:{got.port}/secret-path"
        error = str(await Senders(HERE).send(url, "Title", "Text"))
    assert not any(secret in error for secret in ("user-name", "pass-word", "secret-path"))


def test_url_fault_accepts_usual_urls() -> None:
    urls = (SECRET, "slack://a/b/c", "ntfys://ntfy.sh/topic", "matrixs://user:pw@host/#room", "tgram://1:a/2")
    assert [url_fault(url) for url in urls] == [None] * len(urls)
