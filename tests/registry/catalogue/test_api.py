"""`/catalogue`: lists, plans and installations against a registry."""

from __future__ import annotations

import copy
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from mao_registry.routes.catalogue import INSTALL, SEARCH
from mao_shared.errors import InvalidInput, PeerUnavailable
from mao_shared.models import ResolvedImage
from mao_shared.models.tool import Pull
from mao_shared.store import Store
from mao_shared.store.memory import MemoryStore
from tests.registry.conftest import running
from tests.registry.doubles import DyingStore, ImagelessServices, Killed, WillingServices

from .samples import LAB, original_content

Document = dict[str, Any]
KINDS = ("tools", "datasets", "pipelines")


class SomeImages(WillingServices):
    """Services that have some images, and can pull others; the rest does not exist."""

    def __init__(self, here: set[str], elsewhere: set[str] | None = None) -> None:
        super().__init__()
        self.here = here
        self.elsewhere = elsewhere or set()

    async def resolve_image(self, image: str, pull: Pull) -> ResolvedImage:
        if image not in self.here and (pull == "never" or image not in self.elsewhere):
            raise InvalidInput(f"There is no image {image!r}.", code="image-not-found", next="Build it.")
        return await super().resolve_image(image, pull)


def body(name: str = "Hub survey", **fields: Any) -> Document:
    return {"name": name, "catalogue": LAB} | fields


async def registered(api: httpx.AsyncClient) -> dict[str, list[str]]:
    """Return the names of all records, and of the enrolments."""
    found = {}
    for path in (*(f"registry/{kind}" for kind in KINDS), "enrolments"):
        items = (await api.get(f"/{path}")).json()["items"]
        key = "pipeline" if path == "enrolments" else "name"
        found[path.removeprefix("registry/")] = [item[key] for item in items]
    return found


NOTHING: dict[str, list[str]] = {"tools": [], "datasets": [], "pipelines": [], "enrolments": []}
ALL_OF_SURVEY = {
    "tools": ["crawler", "summary"],
    "datasets": ["raw", "sums"],
    "pipelines": ["Hub-survey"],
    "enrolments": ["Hub-survey"],
}


@pytest.fixture
async def with_lab(
    memory: MemoryStore, services: WillingServices, tmp_path: Path
) -> AsyncIterator[httpx.AsyncClient]:
    """Yield the API of a registry with two catalogues, and one that is not there."""
    lab, other = tmp_path / "lab.json", tmp_path / "other.json"
    lab.write_text(json.dumps(LAB))
    other.write_text(json.dumps({"pipelines": LAB["pipelines"][1:2]}))
    catalogues = {"lab": str(lab), "other": str(other), "gone": str(tmp_path / "gone.json")}
    async with running(memory, services, catalogues=catalogues) as (client, _):
        yield client


async def test_list_of_configured_catalogues(with_lab: httpx.AsyncClient) -> None:
    listed = (await with_lab.get("/catalogue", params={"kind": "pipelines"})).json()
    assert [(item["source"], item["name"]) for item in listed["items"]] == [
        ("lab", "Hub-survey"),
        ("lab", "with-secret"),
        ("lab", "unknown-tool"),
        ("lab", "rooted"),
        ("lab", "by-tool"),
        ("other", "with-secret"),
    ]
    assert [item["name"] for item in listed["unreadable"]] == ["gone"]
    sources = (await with_lab.get("/catalogue/sources")).json()["items"]
    assert [(source["name"], source["entries"]) for source in sources] == [
        ("lab", 10),
        ("other", 1),
        ("gone", None),
    ]


@pytest.mark.parametrize(
    ("q", "names"),
    [
        ("", 5),
        ("HUB lists", 1),
        ("sums", 1),
        ("crawler", 3),
        ("nothing of this", 0),
    ],
)
async def test_list_searches_words(with_lab: httpx.AsyncClient, q: str, names: int) -> None:
    listed = await with_lab.get("/catalogue", params={"kind": "pipelines", "q": q, "source": "lab"})
    assert len(listed.json()["items"]) == names


async def test_list_pages(with_lab: httpx.AsyncClient) -> None:
    query: dict[str, Any] = {"source": "lab", "limit": 4}
    names: list[str] = []
    while True:
        page = (await with_lab.get("/catalogue", params=query)).json()
        names += [f"{item['kind']}/{item['name']}" for item in page["items"]]
        if page["cursor"] is None:
            break
        query["cursor"] = page["cursor"]
    assert len(names) == len(set(names)) == 10


async def test_list_with_local_datasets(with_lab: httpx.AsyncClient) -> None:
    states = {}
    for local in (False, True):
        listed = await with_lab.get("/catalogue", params={"local": local, "q": "hub survey"})
        states[local] = listed.json()["items"][0]["state"]
    assert states == {False: "incomplete", True: "ready"}


async def test_show_by_title_and_source(with_lab: httpx.AsyncClient) -> None:
    shown = (await with_lab.get("/catalogue/pipelines/Hub survey")).json()
    assert shown["definition"]["name"] == "Hub-survey"
    ambiguous = await with_lab.get("/catalogue/pipelines/with-secret")
    assert ambiguous.json()["code"] == "catalogue-ambiguous"
    one = await with_lab.get("/catalogue/pipelines/with-secret", params={"source": "other"})
    assert (one.status_code, one.json()["source"]) == (200, "other")
    for source in ("nowhere", "gone"):
        assert (await with_lab.get("/catalogue", params={"source": source})).status_code in (404, 503)


async def test_install_configured_entry(with_lab: httpx.AsyncClient) -> None:
    done = await with_lab.post("/catalogue/install", json={"name": "Hub survey", "local": True})
    assert (done.status_code, done.json()["state"]) == (200, "installed")
    assert await registered(with_lab) == ALL_OF_SURVEY


@pytest.mark.parametrize("source", ["/etc/passwd", "https://hub.example.org/", "file:///etc/passwd", ".."])
async def test_caller_names_no_address(with_lab: httpx.AsyncClient, source: str) -> None:
    """Only configured catalogues are read: names are all that a caller can send."""
    refused = [
        await with_lab.get("/catalogue", params={"source": source}),
        await with_lab.post("/catalogue/plan", json={"name": "x", "source": source}),
        await with_lab.post("/catalogue/install", json={"name": "x", "source": source}),
        await with_lab.post("/catalogue/inspect", json={"catalogue": source}),
    ]
    assert [answer.status_code for answer in refused] == [422] * 4


async def test_inspect_lists_entries_sent(quick_api: httpx.AsyncClient) -> None:
    bad: list[Any] = [{"name": "../x", "image": "a"}, 7]
    sent = {"catalogue": {"tools": [*bad, *LAB["tools"]]}, "kind": "tools"}
    listed = (await quick_api.post("/catalogue/inspect", json=sent)).json()["items"]
    assert [(item["name"], item["state"]) for item in listed] == [
        ("../x", "unusable"),
        ("tools[1]", "unusable"),
        ("crawler", "ready"),
        ("summary", "ready"),
        ("hub", "ready"),
    ]
    assert await registered(quick_api) == NOTHING


async def test_plan_writes_nothing(quick_api: httpx.AsyncClient, services: WillingServices) -> None:
    planned = await quick_api.post("/catalogue/plan", json=body(local=True))
    assert (planned.status_code, planned.json()["state"]) == (200, "ready")
    assert await registered(quick_api) == NOTHING
    assert (services.made, services.remotes, services.datasets, services.pinned()) == ([], [], [], [])


async def test_install_twice(api: httpx.AsyncClient, services: WillingServices) -> None:
    remote = "git@git.example.org:mao/raw.git"
    wanted = body(datasets={"raw": remote}, local=True)
    first = (await api.post("/catalogue/install", json=wanted)).json()
    assert await registered(api) == ALL_OF_SURVEY
    assert (services.made, services.remotes) == (["sums"], [remote])
    made = {f"{item['kind']}/{item['name']}": item["state"] for item in first["items"]}
    assert made["tool/crawler"] == made["dataset/raw"] == made["pipeline/Hub-survey"] == "created"
    raw = (await api.get("/registry/datasets/raw")).json()
    assert (raw["master"], raw["nodes"]) == (remote, ["node-1"])

    revisions = [
        (await api.get(f"/registry/tools/{name}")).headers["etag"] for name in ("crawler", "summary")
    ]
    again = (await api.post("/catalogue/install", json=wanted)).json()
    assert again["state"] == "installed"
    assert {item["state"] for item in again["items"]} == {"unchanged"}
    after = [(await api.get(f"/registry/tools/{name}")).headers["etag"] for name in ("crawler", "summary")]
    assert after == revisions
    assert services.made == ["sums"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Hub survey", ["dataset raw", "dataset sums", "--local"]),
        ("unknown-tool", ["tool nobody-has-it", "--image nobody-has-it=IMAGE"]),
        ("with-secret", ["secret crawler-api-key", "maoctl secret set crawler-api-key", "--agree"]),
        ("rooted", ["docker socket", "--agree 'docker socket'"]),
    ],
)
async def test_install_incomplete_writes_nothing(
    quick_api: httpx.AsyncClient, services: WillingServices, name: str, words: list[str]
) -> None:
    refused = await quick_api.post("/catalogue/install", json=body(name))
    problem = refused.json()
    assert (refused.status_code, problem["code"]) == (422, "catalogue-incomplete")
    text = f"{problem['detail']} {problem['next']}"
    assert all(word in text for word in words)
    assert problem["items"]
    assert await registered(quick_api) == NOTHING
    assert (services.made, services.pinned()) == ([], [])


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("tools", {"image": "evil/crawler:1"}),
        ("tools", {"command": ["--other"]}),
        ("datasets", {"master": "git@git.example.org:mao/other.git"}),
        ("pipelines", {"description": "Something else."}),
    ],
)
async def test_install_of_what_was_not_shown_is_refused(
    quick_api: httpx.AsyncClient, kind: str, change: dict[str, Any]
) -> None:
    shown = (await quick_api.post("/catalogue/plan", json=body(local=True))).json()
    entries = copy.deepcopy(LAB)
    index = next(at for at, one in enumerate(LAB[kind]) if one["name"] in ("crawler", "sums", "Hub survey"))
    entries[kind][index] |= change
    now = body(local=True, catalogue=entries)
    refused = await quick_api.post("/catalogue/install", json=now | {"digest": shown["digest"]})
    assert (refused.status_code, refused.json()["code"]) == (409, "catalogue-changed")
    assert await registered(quick_api) == NOTHING
    done = await quick_api.post("/catalogue/install", json=body(local=True, digest=shown["digest"]))
    assert done.status_code == 200


async def test_install_differing_tool(quick_api: httpx.AsyncClient) -> None:
    mine = {"name": "crawler", "author": "me", "image": "mine:1"}
    await quick_api.post("/registry/tools", json=mine)
    refused = (await quick_api.post("/catalogue/install", json=body(local=True))).json()
    assert refused["code"] == "catalogue-incomplete"
    assert refused["items"][0]["changes"] == ["image: 'mine:1' → 'lab/crawler:1.4'"]
    assert (await registered(quick_api))["pipelines"] == []

    for existing, image in (("keep", "mine:1"), ("replace", "lab/crawler:1.4")):
        done = await quick_api.post("/catalogue/install", json=body(local=True, existing=existing))
        assert done.status_code == 200
        tool = (await quick_api.get("/registry/tools/crawler")).json()
        assert (tool["image"], tool["author"]) == (image, "me")


async def test_install_replaces_pipeline_and_renews(quick_api: httpx.AsyncClient) -> None:
    await quick_api.post("/catalogue/install", json=body(local=True))
    steps = [{"tool": "crawler", "dataset": "raw", "name": "acquire", "command": ["--some"]}]
    changed = {"title": "Hub survey", "steps": steps}
    assert (await quick_api.put("/registry/pipelines/Hub-survey", json=changed)).status_code == 200
    refused = await quick_api.post("/catalogue/install", json=body(local=True))
    assert refused.json()["code"] == "catalogue-incomplete"
    done = (await quick_api.post("/catalogue/install", json=body(local=True, existing="replace"))).json()
    assert done["items"][0]["state"] == "replaced"
    enrolment = (await quick_api.get("/enrolments/Hub-survey")).json()
    assert [step["command"] for step in enrolment["steps"]] == [["--all"], None]


async def test_install_pulls_before_it_writes(memory: MemoryStore) -> None:
    services = SomeImages({"lab/crawler:1.4"})
    async with running(memory, services) as (client, _):
        planned = (await client.post("/catalogue/plan", json=body(local=True))).json()
        images = {item["name"]: item["state"] for item in planned["items"] if item["kind"] == "image"}
        assert images == {"lab/crawler:1.4": "unchanged", "lab/summary:2": "pulled"}
        refused = (await client.post("/catalogue/install", json=body(local=True))).json()
        assert refused["code"] == "image-not-found"
        assert refused["detail"].startswith("Nothing was installed. image lab/summary:2: ")
        assert await registered(client) == NOTHING
        services.elsewhere.add("lab/summary:2")
        assert (await client.post("/catalogue/install", json=body(local=True))).status_code == 200


async def test_install_asks_remotes_before_it_writes(memory: MemoryStore) -> None:
    class Unreachable(WillingServices):
        async def check_remote(self, master: str) -> None:
            raise InvalidInput("Nothing is there.", code="dataset-unreachable", next="Check the URL.")

    async with running(memory, Unreachable()) as (client, _):
        wanted = body(local=True, datasets={"raw": "git@git.example.org:x.git"})
        refused = (await client.post("/catalogue/install", json=wanted)).json()
        assert (refused["code"], "dataset raw: Nothing" in refused["detail"]) == ("dataset-unreachable", True)
        assert await registered(client) == NOTHING


@pytest.mark.parametrize("master", ["ext::sh -c id", "http://x.example.org/a", "-oProxyCommand=x", "a b"])
async def test_install_refuses_remotes_as_by_hand(quick_api: httpx.AsyncClient, master: str) -> None:
    wanted = body(local=True, datasets={"raw": master})
    assert (await quick_api.post("/catalogue/install", json=wanted)).json()["code"] == "catalogue-incomplete"
    sent = {"datasets": [{"name": "raw", "master": master}], "pipelines": LAB["pipelines"]}
    by_catalogue = await quick_api.post("/catalogue/plan", json=body(catalogue=sent))
    assert by_catalogue.json()["state"] == "unusable"
    assert await registered(quick_api) == NOTHING


async def test_examples_of_api_pages(quick_api: httpx.AsyncClient) -> None:
    for path, examples in (("inspect", SEARCH), ("plan", INSTALL), ("install", INSTALL)):
        for example in examples.values():
            answer = await quick_api.post(f"/catalogue/{path}", json=example["value"])
            assert answer.status_code == 200, answer.text
    assert (await registered(quick_api))["pipelines"] == ["Measure-this-machine"]


async def test_install_tool_only(quick_api: httpx.AsyncClient) -> None:
    done = await quick_api.post("/catalogue/install", json=body("crawler", kind="tools"))
    assert done.status_code == 200
    assert await registered(quick_api) == NOTHING | {"tools": ["crawler"]}


async def test_install_while_runner_is_away(memory: MemoryStore) -> None:
    class Away(WillingServices):
        async def resolve_image(self, image: str, pull: Pull) -> ResolvedImage:
            raise PeerUnavailable("The runner is not reachable.", next="Wait.")

    async with running(memory, Away()) as (client, _):
        listed = (await client.post("/catalogue/inspect", json={"catalogue": LAB})).json()["items"]
        assert {item["state"] for item in listed[0]["items"] if item["kind"] == "image"} == {"unknown"}
        refused = await client.post("/catalogue/install", json=body(local=True))
        assert (refused.status_code, refused.json()["code"]) == (503, "service-unavailable")


async def test_install_completes_interrupted_one(memory: MemoryStore, services: WillingServices) -> None:
    """Killed after each write in turn, the repeated command ends with everything installed."""
    for lives in range(20):
        store = MemoryStore()
        dying: Any = DyingStore(store, lives)
        try:
            async with running(dying, services) as (client, _):
                await client.post("/catalogue/install", json=body(local=True))
                is_killed = False
        except (Killed, BaseExceptionGroup):
            is_killed = True
        async with running(store, services) as (client, _):
            done = await client.post("/catalogue/install", json=body(local=True))
            assert done.status_code == 200, (lives, done.text)
            assert await registered(client) == ALL_OF_SURVEY
        await store.close()
        if not is_killed:
            break
    assert 3 < lives < 19


async def test_original_pipelines_install_or_say_what_is_missing(store: Store) -> None:
    content = original_content()
    names = [entry["name"] for entry in content.pipelines]
    sent = content.model_dump(mode="json")
    results: dict[str, str] = {}
    async with running(store, WillingServices()) as (client, _):
        for name in names:
            wanted = {"name": name, "catalogue": sent, "local": True}
            answer = await client.post("/catalogue/install", json=wanted)
            results[name] = answer.json()["state"] if answer.is_success else answer.json()["detail"]
    refused = {name: text for name, text in results.items() if text != "installed"}
    assert list(refused) == ["ArtifactHUB Collector with Helm download", "CIPolice Scanner"]
    secret, socket = refused.values()
    assert "asked for in $ARTIFACT_HUB_API_KEY_ID" in secret
    assert "asked for in $ARTIFACT_HUB_API_KEY_SECRET" in secret
    assert "docker socket" in socket


async def test_original_pipelines_without_their_images(memory: MemoryStore) -> None:
    content = original_content()
    sent = content.model_dump(mode="json")
    async with running(memory, ImagelessServices()) as (client, _):
        answer = await client.post(
            "/catalogue/install", json={"name": "skan-argocd-demo", "catalogue": sent, "local": True}
        )
        assert answer.json()["code"] == "image-not-found"
        assert "image busybox" in answer.json()["detail"]
        assert "image alcide/skan" in answer.json()["detail"]
        assert await registered(client) == NOTHING
