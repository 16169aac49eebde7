"""Reading catalogues: which addresses are taken, bounded files and downloads, redirects."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from mao_shared.clients import catalogue
from mao_shared.clients.catalogue import (
    MAX_BYTES,
    WHOLE,
    CatalogueUnreadable,
    parse_location,
    parse_parts,
    read_parts,
)
from mao_shared.errors import InvalidInput
from mao_shared.models.catalogue import MAX_ENTRIES

BASE = "https://hub.example.org/api/"


@pytest.mark.parametrize(
    ("text", "address", "is_folder"),
    [
        ("https://hub.example.org", "https://hub.example.org", True),
        (BASE, BASE, True),
        (f"{BASE}pipelines.json", BASE, True),
        (f"{BASE}tools.json", BASE, True),
        (f"{BASE}lab.json", f"{BASE}lab.json", False),
        (f"{BASE}pipelines.json?key=1", f"{BASE}pipelines.json?key=1", False),
        ("HTTPS://hub.example.org/lab.json", "HTTPS://hub.example.org/lab.json", False),
    ],
)
def test_location_of_url(text: str, address: str, is_folder: bool) -> None:
    location = parse_location(text)
    assert (location.address, location.is_url, location.is_folder) == (address, True, is_folder)


@pytest.mark.parametrize(
    "text",
    [
        "http://hub.example.org/lab.json",
        "file:///etc/passwd",
        "ftp://hub.example.org/",
        "unix:///var/run/docker.sock",
        "https:///lab.json",
        "https://ada:secret@hub.example.org/",
        "https://token@hub.example.org/",
    ],
)
def test_location_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"allowed|host"):
        parse_location(text)


def test_location_of_files(tmp_path: Path) -> None:
    assert parse_location(str(tmp_path)).is_folder
    assert parse_location(str(tmp_path / "pipelines.json")).address == str(tmp_path)
    assert not parse_location(str(tmp_path / "lab.json")).is_folder


def test_location_shows_no_query() -> None:
    assert parse_location(f"{BASE}lab.json?token=secret").shown == f"{BASE}lab.json"


async def test_read_folder_needs_one_of_its_files(tmp_path: Path) -> None:
    (tmp_path / "tools.json").write_text("[]")
    assert await read_parts(parse_location(str(tmp_path))) == {"tools": b"[]"}
    (tmp_path / "tools.json").unlink()
    with pytest.raises(CatalogueUnreadable, match=r"none of pipelines\.json, tools\.json"):
        await read_parts(parse_location(str(tmp_path)))


async def test_read_file_that_is_none(tmp_path: Path) -> None:
    fifo = tmp_path / "lab.json"
    os.mkfifo(fifo)
    for path, why in ((fifo, "not a file"), (Path("/dev/zero"), "not a file"), (tmp_path / "x", "nothing")):
        with pytest.raises(CatalogueUnreadable, match=why):
            await read_parts(parse_location(str(path)))


async def test_read_file_too_large(tmp_path: Path) -> None:
    (tmp_path / "lab.json").write_bytes(b" " * (MAX_BYTES + 1))
    with pytest.raises(CatalogueUnreadable, match="larger than"):
        await read_parts(parse_location(str(tmp_path / "lab.json")))


def streamed(body: bytes) -> httpx.Response:
    return httpx.Response(200, stream=httpx.ByteStream(body))


async def fetch(answer: Callable[[httpx.Request], httpx.Response], url: str = f"{BASE}lab.json") -> Any:
    return await read_parts(parse_location(url), httpx.MockTransport(answer))


def redirecting(*targets: str) -> Callable[[httpx.Request], httpx.Response]:
    """Return a server that redirects to these in turn, then answers with an empty list."""
    ahead = list(targets)

    def answer(_: httpx.Request) -> httpx.Response:
        if ahead:
            return httpx.Response(302, headers={"location": ahead.pop(0)})
        return streamed(b"[]")

    return answer


async def test_fetch_folder_of_original() -> None:
    tools = json.dumps([{"name": "probe", "image": "probe"}])

    def answer(request: httpx.Request) -> httpx.Response:
        known = {"/api/tools.json": tools, "/api/pipelines.json": "[]"}
        found = known.get(request.url.path)
        return httpx.Response(404) if found is None else streamed(found.encode())

    assert await fetch(answer, BASE) == {"pipelines": b"[]", "tools": tools.encode()}


@pytest.mark.parametrize("target", ["https://other.example.org/x.json", "/moved.json"])
async def test_fetch_follows_redirects_to_https(target: str) -> None:
    assert await fetch(redirecting(target)) == {WHOLE: b"[]"}


@pytest.mark.parametrize(
    "target", ["http://hub.example.org/x", "file:///etc/passwd", "ftp://x.example.org/", "gopher://x/"]
)
async def test_fetch_follows_no_redirect_to_other_schemes(target: str) -> None:
    with pytest.raises(CatalogueUnreadable, match=r"redirects|Protocol"):
        await fetch(redirecting(target))


async def test_fetch_ends_redirects() -> None:
    with pytest.raises(CatalogueUnreadable, match="more than 3 times"):
        await fetch(redirecting(*["/again"] * 5))


async def test_fetch_bounds_size() -> None:
    sent = 0

    async def endless() -> Any:
        nonlocal sent
        while True:
            sent += 1 << 16
            yield b" " * (1 << 16)

    with pytest.raises(CatalogueUnreadable, match="larger than"):
        await fetch(lambda _: httpx.Response(200, content=endless()))
    assert sent <= MAX_BYTES + (1 << 17)


async def test_fetch_does_not_decompress() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert request.headers["accept-encoding"] == "identity"
        return httpx.Response(200, stream=httpx.ByteStream(b"\x1f\x8b"), headers={"content-encoding": "gzip"})

    assert await fetch(answer) == {WHOLE: b"\x1f\x8b"}


@pytest.mark.parametrize("error", [httpx.ConnectError("refused"), httpx.ReadTimeout(""), TimeoutError()])
async def test_fetch_failures_say_why(error: Exception) -> None:
    def answer(_: httpx.Request) -> httpx.Response:
        raise error

    with pytest.raises(CatalogueUnreadable) as caught:
        await fetch(answer)
    assert caught.value.detail.startswith(f"The catalogue {BASE}lab.json cannot be read: ")
    assert caught.value.next


async def test_fetch_status_is_reported() -> None:
    with pytest.raises(CatalogueUnreadable, match="answered 500"):
        await fetch(lambda _: httpx.Response(500))


# Documents


def whole(document: Any) -> dict[str, bytes]:
    return {WHOLE: json.dumps(document).encode()}


def test_parse_lists_by_kind() -> None:
    content = parse_parts(whole({"tools": [1], "pipelines": [2], "title": "Lab", "version": 3}))
    assert (content.tools, content.pipelines) == ([1], [2])


def test_parse_list_of_mixed_entries() -> None:
    entries: list[Any] = [
        {"name": "p", "steps": []},
        {"name": "t", "image": "i"},
        {"name": "d", "body": {"master": "x"}},
        {"name": "f", "contacts": []},
        {"name": "other"},
        7,
    ]
    content = parse_parts(whole(entries))
    assert content.pipelines == [entries[0], entries[4], 7]
    assert (content.tools, content.datasets, content.federations) == (
        [entries[1]],
        [entries[2]],
        [entries[3]],
    )


def test_parse_single_entry() -> None:
    assert parse_parts(whole({"name": "t", "image": "i"})).tools == [{"name": "t", "image": "i"}]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"7",
        b'"text"',
        b"{}",
        b'{"tools": {}}',
        b'{"pipelines": [' + b"1," * MAX_ENTRIES + b"1]}",
        b"[" * 100_000,
    ],
)
def test_parse_refuses_what_is_no_catalogue(body: bytes) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_parts({WHOLE: body})
    assert caught.value.code == "catalogue-invalid"


def test_parse_keeps_entries_beside_a_huge_number() -> None:
    body = b'[{"name": "a", "image": "x"}, {"name": "b", "image": ' + b"9" * 5000 + b"}]"
    assert [entry["name"] for entry in parse_parts({WHOLE: body}).tools] == ["a", "b"]


def test_parse_original_form_of_each_file() -> None:
    assert list(catalogue.FILES) == ["pipelines.json", "tools.json", "datasets.json", "federations.json"]
    assert parse_parts({"tools": b'[{"name": "x"}]'}).tools == [{"name": "x"}]
