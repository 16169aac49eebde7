"""The catalogues that the operator configured."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from mao_registry.catalogue import sources as module
from mao_registry.catalogue.sources import KEEP_SECONDS, MAX_SOURCES, Sources, parse_sources
from mao_registry.settings import RegistrySettings
from mao_shared.clients.catalogue import CatalogueUnreadable, Location
from mao_shared.clock import SystemClock
from mao_shared.errors import NotFound

from .samples import LAB

HUB = "https://hub.example.org/api/"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", []),
        (HUB, ["hub.example.org"]),
        (f"hub={HUB},lab=/srv/lab.json", ["hub", "lab"]),
        (f"  {HUB}pipelines.json  /srv/lab.json\n/srv/catalogue/", ["hub.example.org", "lab", "catalogue"]),
        ("/srv/marketplace/pipelines.json", ["marketplace"]),
        ("https://hub.example.org/x.json?key=1", ["hub.example.org"]),
    ],
)
def test_sources_are_named(text: str, names: list[str]) -> None:
    assert list(parse_sources(text)) == names


@pytest.mark.parametrize(
    "text",
    [
        "http://hub.example.org/",
        "lab=ftp://x/",
        f"{HUB} {HUB}x.json",
        "a=/x a=/y",
        " ".join(f"/srv/{number}.json" for number in range(MAX_SOURCES + 1)),
    ],
)
def test_sources_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"allowed|called|at most"):
        parse_sources(text)
    monkeypatch.setenv("MAO_CATALOGUES", text)
    with pytest.raises(ValueError, match="catalogues"):
        RegistrySettings()


def test_sources_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAO_CATALOGUES", f"hub={HUB}")
    assert RegistrySettings().catalogues == {"hub": HUB}


async def test_sources_unreadable_one_hides_no_other(tmp_path: Path) -> None:
    (tmp_path / "lab.json").write_text(json.dumps(LAB))
    (tmp_path / "broken.json").write_text("{")
    given = {name: str(tmp_path / f"{name}.json") for name in ("lab", "broken", "gone")}
    states = await Sources(given, SystemClock()).states()
    assert [(state.name, state.entries) for state in states] == [
        ("lab", 10),
        ("broken", None),
        ("gone", None),
    ]
    assert "not JSON" in str(states[1].fault)
    assert "there is nothing" in str(states[2].fault)


async def test_sources_unknown_name_is_not_opened() -> None:
    with pytest.raises(NotFound) as caught:
        await Sources({}, SystemClock()).read("/etc/passwd")
    assert caught.value.code == "catalogue-unknown"


class MovableClock:
    def __init__(self) -> None:
        self.time = datetime(2026, 1, 31, tzinfo=UTC)

    def now(self) -> datetime:
        return self.time


async def test_sources_fetched_are_kept_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, fetched = MovableClock(), 0

    async def read_parts(location: Location) -> dict[str, bytes]:
        nonlocal fetched
        assert location.address == HUB
        fetched += 1
        if fetched == 3:
            raise CatalogueUnreadable("away")
        return {"tools": json.dumps(LAB["tools"]).encode()}

    monkeypatch.setattr(module, "read_parts", read_parts)
    sources = Sources({"hub": HUB}, clock)
    for seconds, count in ((0, 1), (KEEP_SECONDS - 1, 1), (2, 2)):
        clock.time += timedelta(seconds=seconds)
        assert len((await sources.read("hub")).entries) == 3
        assert fetched == count
    clock.time += timedelta(seconds=KEEP_SECONDS)
    with pytest.raises(CatalogueUnreadable):
        await sources.read("hub")
    assert len((await sources.read("hub")).entries) == 3


async def test_sources_files_are_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "lab.json"
    sources = Sources({"lab": str(path)}, SystemClock())
    counts = []
    lists: list[list[Any]] = [[], LAB["tools"]]
    for tools in lists:
        path.write_text(json.dumps({"tools": tools, "federations": LAB["federations"]}))
        counts.append(len((await sources.read("lab")).entries))
    assert counts == [1, 4]
