"""The pages of a dataset, a commit and quarantined snapshots over a fake data manager."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from mao_shared.commit_messages import embed_record

from .conftest import Open

COMMIT, BASE = "a" * 40, "b" * 40
HOSTILE = "<script>alert(1)</script>\x1b[2J\u202e"
SHOWN = "&lt;script&gt;alert(1)&lt;/script&gt;\\x1b[2J\\u202e"
PAGE = f"/ui/datasets/data/commits/{COMMIT}"
CHECK = {"name": "few", "kind": "rows", "on_failure": "quarantine", "passed": False, "detail": HOSTILE}
RECORD = {
    "pipeline": HOSTILE,
    "image": {"name": HOSTILE, "pinned": "sha256:12"},
    "env": {HOSTILE: HOSTILE},
    "checks": [CHECK],
    "output": {"base": BASE},
    "input": {"dataset": "src", "branch": HOSTILE, "commit": BASE},
}
SNAPSHOT = {
    "commit": COMMIT,
    "branch": "quarantine/n",
    "dataset": "data",
    "node": "n",
    "run": "r-1",
    "step": "s",
    "quarantined_at": "2026-01-31T12:00:00Z",
    "base": BASE,
    "checks": [CHECK],
    "by": "",
    "note": HOSTILE,
    "pushed": True,
}


class Manager:
    """A data manager that has one commit, in quarantine or not. `bodies`: of the decisions asked for."""

    def __init__(
        self, *, held: str | None = None, message: str = "", parents: tuple[str, ...] = (BASE,)
    ) -> None:
        self.held, self.parents = held, parents
        self.message = message or embed_record(HOSTILE, {"mao": RECORD}) + "\nMAO-Run: r-1\nMAO-Step: s\n"
        self.bodies: list[Any] = []
        self.queries: list[dict[str, str]] = []
        self.refuses: dict[str, Any] | None = None

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.get("/datasets/data/log")
        async def log(branch: str) -> Any:
            commit = {
                "commit": COMMIT,
                "parents": list(self.parents),
                "author": HOSTILE,
                "email": "m@n",
                "time": "2026-01-31T12:00:00Z",
                "subject": HOSTILE,
                "message": self.message,
                "signing_key": "SHA256:abc",
            }
            if "MAO-Run" in self.message:
                commit |= {"run": "r-1", "step": "s"}
            return {"items": [commit], "cursor": None}

        @app.get("/datasets/data/diff")
        async def diff(request: Request) -> Any:
            self.queries.append(dict(request.query_params))
            files = [
                {"path": HOSTILE, "change": "changed", "size": 1500},
                {"path": "old", "change": "removed"},
            ]
            found: dict[str, Any] = {"before": BASE, "after": COMMIT, "files": files, "cursor": "old"}
            if request.query_params.get("path"):
                found["lines"] = {"lines": [f"-{HOSTILE}", "+new", " same"], "truncated": True}
            return found

        @app.get("/datasets/data/quarantine/{commit}")
        async def held(commit: str) -> Any:
            if self.held is None:
                return missing()
            return SNAPSHOT | {"state": self.held, "accepted_as": BASE if self.held == "accepted" else None}

        @app.post("/datasets/data/quarantine/{commit}/{verb}")
        async def decide(commit: str, verb: str, request: Request) -> Any:
            self.bodies.append((commit, verb, await request.json()))
            if self.refuses is not None:
                return JSONResponse(self.refuses, self.refuses["status"])
            return SNAPSHOT | {"state": f"{verb}ed", "accepted_as": BASE, "note": "ok", "by": "Ada"}

        @app.exception_handler(404)
        async def not_found(_request: Request, _error: Exception) -> JSONResponse:
            return missing()

        return app


def missing() -> JSONResponse:
    return JSONResponse({"status": 404, "code": "not-found", "detail": "There is none."}, 404)


def services(manager: Manager) -> dict[str, FastAPI]:
    return {"datamgmt": manager.app(), "scheduler": Manager().app()}


async def test_commit_tells_where_it_comes_from(open_gateway: Open) -> None:
    manager = Manager()
    async with open_gateway(services(manager)) as client:
        page = await client.get(PAGE)
    assert page.status_code == 200, page.text
    assert "<script>alert" not in page.text
    assert page.text.count(SHOWN) > 8  # subject, author, pipeline, image, variable, finding, branch, file
    for words in (
        "SHA256:abc",
        "sha256:12",
        "1.5 kB",
        'href="/ui/runs/r-1"',
        f"/ui/datasets/src/commits/{BASE}",
    ):
        assert words in page.text
    assert "maoctl run verify r-1" in page.text
    assert f'href="{PAGE}?after=old#files"' in page.text
    assert 'method="post"' not in page.text
    [asked] = manager.queries
    assert (asked["from"], asked["to"]) == (BASE, COMMIT)


async def test_commit_shows_the_difference_of_a_file(open_gateway: Open) -> None:
    async with open_gateway(services(Manager())) as client:
        page = await client.get(PAGE, params={"file": HOSTILE})
    assert f"<del>-{SHOWN}</del>" in page.text
    assert "<ins>+new</ins>" in page.text
    assert "only the first lines are shown" in page.text


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("made by hand", "made by hand"),
        ("x\n\nMAO-Round: round-7\nMAO-Tick: 2026-01-31T12:00:00Z\n", "/ui/agreement/data/round-7"),
        (
            embed_record("x", {"mao": {"kind": "quarantine", "state": "discarded", "snapshot": BASE}}),
            "This commit records a decision: discarded",
        ),
        (
            embed_record("x", {"mao": {"quarantine": {"commit": BASE, "by": "Ada"}}}),
            "This snapshot was accepted from quarantine",
        ),
        (embed_record("x", {"mao": {"checks": "odd", "outputs": [], "manifest": 7}}), "The record as JSON"),
    ],
)
async def test_commit_of_another_kind(open_gateway: Open, message: str, words: str) -> None:
    async with open_gateway(services(Manager(message=message))) as client:
        page = await client.get(PAGE)
    assert page.status_code == 200, page.text
    assert words in page.text


async def test_commit_without_one_before_it(open_gateway: Open) -> None:
    manager = Manager(parents=())
    async with open_gateway(services(manager)) as client:
        page = await client.get(PAGE, params={"file": "a"})
    assert "the first commit" in page.text
    assert manager.queries == []


async def test_commit_that_is_none(open_gateway: Open) -> None:
    async with open_gateway(services(Manager())) as client:
        unknown = await client.get(f"/ui/datasets/other/commits/{COMMIT}")
        odd = await client.get("/ui/datasets/data/commits/..%2f..%2fx")
        word = await client.get("/ui/datasets/data/commits/main")
    assert unknown.status_code == 404
    assert odd.status_code in (404, 422)
    assert word.status_code == 422


@pytest.mark.parametrize(
    ("state", "words", "forms"),
    [
        ("waiting", "waits for a decision", 2),
        ("accepted", "then accepted", 0),
        ("discarded", "then discarded", 0),
    ],
)
async def test_commit_in_quarantine(open_gateway: Open, state: str, words: str, forms: int) -> None:
    manager = Manager(held=state, parents=("c" * 40,))
    async with open_gateway(services(manager)) as client:
        page = await client.get(PAGE)
    assert words in page.text
    assert page.text.count('method="post"') == forms
    assert manager.queries[0]["from"] == BASE  # what it builds on, not the snapshot before it in quarantine


async def decide(open_gateway: Open, manager: Manager, verb: str, fields: str) -> Any:
    """Post a decision; return the redirection and the page that it leads to."""
    headers = {"content-type": "application/x-www-form-urlencoded"}
    async with open_gateway(services(manager)) as client:
        where = f"/ui/datasets/data/quarantine/{COMMIT}/{verb}"
        answer = await client.post(where, content=fields, headers=headers)
        target = answer.headers.get("location", PAGE)
        return answer, await client.get(target if target.startswith(PAGE) else PAGE)


async def test_decision_goes_back_to_where_it_was_taken(open_gateway: Open) -> None:
    manager = Manager(held="accepted")
    answer, page = await decide(
        open_gateway, manager, "accept", f"note=a+holiday&by=Ada&then={quote(PAGE + '#checks', safe='')}"
    )
    assert answer.status_code == 303
    assert answer.headers["location"].startswith(f"{PAGE}?m=")
    assert answer.headers["location"].endswith("#checks")
    assert manager.bodies == [(COMMIT, "accept", {"by": "Ada", "note": "a holiday"})]
    assert f"Accepted: the snapshot {COMMIT[:10]} was published as {BASE[:10]}." in page.text
    assert "By Ada: ok" in page.text


@pytest.mark.parametrize("then", ["", "https://example.org/ui/", "//example.org/ui/", "/\\example.org", "/x"])
async def test_decision_never_leads_elsewhere(open_gateway: Open, then: str) -> None:
    answer, _ = await decide(open_gateway, Manager(), "discard", f"then={quote(then, safe='')}")
    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/ui/datasets/data?m=")
    assert answer.headers["location"].endswith("#quarantine")


async def test_decision_that_is_refused_shows_what_was_typed(open_gateway: Open) -> None:
    manager = Manager(held="waiting")
    manager.refuses = {
        "status": 409,
        "code": "quarantine-conflict",
        "detail": f"both changed {HOSTILE}",
        "next": "Discard it.",
    }
    answer, page = await decide(
        open_gateway, manager, "accept", f"note={quote(HOSTILE)}&then={quote(PAGE, safe='')}"
    )
    assert answer.status_code == 303
    assert f"both changed {SHOWN}" in page.text
    assert "Discard it." in page.text
    assert f'value="{SHOWN}"' in page.text
    assert page.text.count("<details open>") == 1


async def test_decision_that_is_none(open_gateway: Open) -> None:
    manager = Manager()
    answer, _ = await decide(open_gateway, manager, "remove", "")
    assert answer.status_code == 422
    assert manager.bodies == []
