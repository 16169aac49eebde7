"""Hostile input to every operation of every service yields problem documents, never a 500.

The calls are generated from the OpenAPI documents, so that new routes are covered automatically.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from mao_git import Clone
from mao_shared.models import GROUND_TRUTH
from tests.support.git import bare_repository
from tests.support.memory_node import NODE, MemoryNode, memory_node
from tests.vote.repo import vote

ROUND = "20260131T120000Z-p-s"
NAMES = {"name": "data", "pipeline": "p", "node": NODE, "round": "latest"}
"""Values of path parameters that lead to something; all others lead nowhere."""
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND")
STREAMS = ("/events", "/runs/{id}/events")  # endless, or waiting for a run
CURSORS = [
    "",
    " ",
    "x",
    "0",
    "-1",
    "1:",
    ":1",
    "0:x",
    "1:x",
    "9" * 19,
    "9" * 18 + ":x",
    "9" * 900,
    "\u0661",
    "é",
    "😀",
    "\0",
    "1:\0zz",
    "1:\0ff",
    "1:\0",
    "%00",
    "..",
    "HEAD",
    "HEAD~1",
    "@{-1}",
    ":/x",
    "--all",
    NODE,
    GROUND_TRUTH,
    "a" * 40,
    "0" * 40,
    "A" * 40,
    "a" * 39,
    "a" * 41,
    "null",
    "1e3",
    "1.0",
    "+1",
    "1_0",
    "data",
    "\r\n",
    "x" * 1000,
    "x" * 1001,
]
LIMITS = [
    "",
    "0",
    "-1",
    "1001",
    "1000000000",
    "9" * 5000,
    "ten",
    "1.5",
    "1e2",
    "NaN",
    "\u0663",
    "0x10",
    "\0",
    " 1 ",
]
NUMBERS = [
    "9" * 20,
    "9" * 5000,
    "-" + "9" * 5000,
    "1e999",
    "NaN",
    "Infinity",
    "0x1",
    "1_000",
    "\u0663",
    "",
    "\0",
    "½",
]


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[MemoryNode]:
    async with memory_node(tmp_path) as node:
        master = bare_repository(tmp_path / "node" / "bare" / "data.git")
        record = {"name": "data", "master": str(master), "nodes": [NODE], "external": ["k"]}
        for method, path, body in (
            ("POST", "/registry/datasets", record),
            ("PUT", "/datasets/data", record),
            ("POST", "/registry/tools", {"name": "data", "image": "busybox"}),
            ("POST", "/registry/tools", {"name": "p", "image": "busybox"}),
            ("POST", "/write", {"key": "k", "value": 1}),
        ):
            answer = await node.client.request(method, path, json=body)
            assert answer.is_success, answer.text
        clone = Clone.open(tmp_path / "node" / "datasets" / "data.git")
        versions = {name: {"d.csv": f"id,v\n1,{v}\n2,{v}\n"} for name, v in (("n1", 1), ("n2", 1), ("n3", 2))}
        first = vote(clone, versions, round_id=ROUND)
        second = vote(clone, versions, first.commit, round_id=ROUND.replace("12", "13"))
        clone.move_branch(GROUND_TRUTH, second.commit, clone.tip(GROUND_TRUTH))
        node.client.event_hooks["response"].append(StatusCheck(node))
        yield node


class StatusCheck:
    """Asserts that the operation of every response documents its status."""

    UNROUTED = (405, 414, 431)  # statuses of requests that reach no operation

    def __init__(self, node: MemoryNode) -> None:
        self._known = [
            (
                method,
                re.compile(re.sub(r"\\{[^}]+\\}", "[^/]+", re.escape(path))),
                set(operation["responses"]),
            )
            for method, path, operation in node.operations()
        ]

    async def __call__(self, response: httpx.Response) -> None:
        request = response.request
        path = request.url.raw_path.decode().partition("?")[0]
        for method, pattern, documented in self._known:
            if method == request.method and pattern.fullmatch(path):
                status = response.status_code
                assert str(status) in documented or status in self.UNROUTED, (method, path, status)
                return


def filled(path: str, **values: str) -> str:
    known = NAMES | values
    return re.sub(r"\{([^}]+)\}", lambda found: quote(known.get(found[1], "x"), safe=""), path)


def lists(node: MemoryNode) -> list[tuple[str, dict[str, str]]]:
    """Return the paths of all paginated lists, with their required parameters."""
    found = []
    for method, path, operation in node.operations():
        parameters = operation.get("parameters", [])
        if method == "GET" and "cursor" in {parameter["name"] for parameter in parameters}:
            needed = {
                parameter["name"]: "d.csv"
                for parameter in parameters
                if parameter.get("required") and parameter["in"] == "query"
            }
            found.append((filled(path), needed | ({"from": GROUND_TRUTH} if "/diff" in path else {})))
    return found


def check(answer: httpx.Response, call: object) -> None:
    """Assert that the answer is no 500 and that a refusal is a problem with a next step."""
    assert answer.status_code < 500 or answer.status_code == 503, (call, answer.text)
    if answer.is_error:
        assert answer.headers["content-type"] == "application/problem+json", call
        assert answer.json()["next"], call


async def test_hostile_cursor_of_every_list(node: MemoryNode) -> None:
    found = lists(node)
    assert len(found) >= 14
    for path, needed in found:
        plain = await node.client.get(path, params=needed)
        assert plain.status_code == 200, (path, plain.text)
        for cursor in CURSORS:
            answer = await node.client.get(path, params=needed | {"cursor": cursor})
            check(answer, (path, cursor))
            if cursor in ("", "x" * 1001):
                assert answer.status_code == 422, (path, cursor)


async def test_hostile_cursor_of_another_list_and_of_what_is_gone(node: MemoryNode) -> None:
    given = []
    for path, needed in lists(node):
        answer = (await node.client.get(path, params=needed | {"limit": "1"})).json()
        given += [answer["cursor"]] if answer["cursor"] else []
    assert len(given) >= 3
    assert (await node.client.delete("/registry/tools/data")).status_code == 200
    for path, needed in lists(node):
        for cursor in given:
            check(await node.client.get(path, params=needed | {"cursor": cursor}), (path, cursor))


async def test_hostile_limit_of_every_list(node: MemoryNode) -> None:
    for path, needed in lists(node):
        for limit in LIMITS:
            answer = await node.client.get(path, params=needed | {"limit": limit})
            check(answer, (path, limit))
            assert answer.status_code == 422 or limit in (" 1 ", "\u0663"), (path, limit)


async def test_hostile_numbers_in_every_query_and_header(node: MemoryNode) -> None:
    """Includes text parameters, which other programs may parse as numbers."""
    for method, path, operation in node.operations():
        if path in STREAMS or method != "GET":
            continue
        for parameter in operation.get("parameters", []):
            for value in NUMBERS:
                if parameter["in"] == "query":
                    answer = await node.client.get(filled(path), params={parameter["name"]: value})
                elif parameter["in"] == "header" and value.isprintable():
                    answer = await node.client.get(filled(path), headers={parameter["name"]: value.encode()})
                else:
                    answer = await node.client.get(filled(path, **{parameter["name"]: value}))
                check(answer, (path, parameter["name"], value))


async def test_hostile_if_match_that_is_no_etag(node: MemoryNode) -> None:
    for method, path, operation in node.operations():
        if "if-match" in {parameter["name"] for parameter in operation.get("parameters", [])}:
            for value in (
                '"' + "9" * 19 + '"',
                '"' + "9" * 5000 + '"',
                '"-1"',
                '"1',
                '""',
                "1",
                'W/"x"',
                '"\u0661"',
            ):
                headers = [(b"if-match", value.encode())]
                answer = await node.client.request(method, filled(path), json={}, headers=headers)
                check(answer, (method, path, value))
                assert answer.is_error, (method, path, value)


async def test_hostile_405_lists_exactly_the_methods(node: MemoryNode) -> None:
    by_path: dict[str, set[str]] = {}
    for method, path, _ in node.operations():
        by_path.setdefault(filled(path), set()).add(method)
    assert len(by_path) > 60
    pages = ("/", "/dashboard", "/docs", "/docs/swagger-ui.css", "/openapi.json", "/services/runner/docs")
    by_path |= {path: {"GET"} for path in pages}
    for path, methods in by_path.items():
        for method in sorted(set(METHODS) - methods):
            answer = await node.client.request(method, path)
            assert answer.status_code == 405, (method, path, answer.text)
            assert set(answer.headers["allow"].split(", ")) == methods, (method, path)
            if method != "HEAD":
                assert set(answer.json()["allowed"]) == methods, (method, path)


@pytest.mark.parametrize("method", METHODS)
async def test_hostile_404_for_unknown_path(node: MemoryNode, method: str) -> None:
    for path in ("/nowhere", "/registry/nothing", "/runs/x/y/z", "/datasets/data/nothing", "/jobs/"):
        answer = await node.client.request(method, path)
        assert answer.status_code == 404, path
        assert "allow" not in answer.headers


TEXTS: list[Any] = [
    None,
    True,
    0,
    -1,
    10**30,
    int("9" * 390),
    1e308,
    "",
    " ",
    "x" * 5000,
    "é\u0085",
    "\u202e",
    [],
    {},
    [[]],
    {"a": {}},
    "9" * 5000,
    "-1",
    "1e999",
    "9" * 30 + "d",
    "9" * 20 + "t",
    "1." + "9" * 20 + "g",
    "* * * * *",
    "@daily",
    "0 0 31 2 *",
    f"1-{'9' * 30} * * * *",
    f"*/{'9' * 30} * * * *",
    "9" * 5000 + " * * * *",
    "2026-13-45T00:00:00Z",
    "0001-01-01T00:00:00Z",
    "9999-12-31T23:59:59Z",
    "2026-01-01T00:00:00+99:99",
    "file:///etc",
    "git@[::1:x",
    "https://[::1",
    "ssh://127.0.0.1:" + "9" * 30 + "/x",
    "https://127.0.0.1:99999/x",
    "localhost:" + "9" * 30 + "/x",
    "[0] * 3",
    "../..",
    ["x"] * 1001,
    dict.fromkeys(map(str, range(1001)), "1"),
]


class Maker:
    """Generate bodies from a schema, with one unusual value."""

    def __init__(self, schemas: dict[str, Any], seed: int) -> None:
        self._schemas, self._chance = schemas, random.Random(seed)

    def make(self, schema: dict[str, Any]) -> Any:
        chance = self._chance
        if "$ref" in schema:
            return self.make(self._schemas[schema["$ref"].rpartition("/")[2]])
        for several in ("anyOf", "oneOf", "examples", "enum"):
            if several in schema:
                one = chance.choice(schema[several])
                return self.make(one) if several.endswith("Of") else one
        match schema.get("type"):
            case "object":
                needed, known = schema.get("required", []), schema.get("properties", {})
                return {
                    name: self.make(s) for name, s in known.items() if name in needed or chance.random() < 0.5
                }
            case "array":
                return [self.make(schema.get("items", {})) for _ in range(chance.randrange(3))]
            case "integer" | "number":
                return chance.choice([0, 1, 5, 60])
            case "boolean":
                return chance.choice([True, False])
        return chance.choice(["data", "p", NODE, "x"])

    def spoil(self, document: Any) -> Any:
        """Return a copy of the document with one value replaced."""
        if isinstance(document, (dict, list)) and document and self._chance.random() < 0.9:
            place = self._chance.choice(
                list(document) if isinstance(document, dict) else range(len(document))
            )
            copy: Any = document.copy()
            copy[place] = self.spoil(document[place])
            return copy
        return self._chance.choice(TEXTS)


async def test_hostile_bodies_with_unusual_values(node: MemoryNode) -> None:
    for method, path, operation in node.operations():
        if "requestBody" not in operation or path.startswith("/federation"):
            continue  # those of the federation change the node permanently
        document = next(d for d in map(node.document, node.apps) if path in d["paths"])
        maker = Maker(document["components"]["schemas"], seed=20261129)
        content = operation["requestBody"]["content"]["application/json"]
        shown = [example["value"] for example in content.get("examples", {}).values()]
        for number in range(40):
            body = (
                maker.make(content["schema"]) if number % 2 or not shown else shown[number // 2 % len(shown)]
            )
            body = at_home(maker.spoil(body))
            answer = await node.client.request(method, filled(path), json=body)
            check(answer, (method, path, body))


def at_home(body: Any) -> Any:
    """Return the document with loopback in place of external hosts."""
    return json.loads(re.sub(r"(?<![\w.-])[\w.-]+\.(org|com|io|net)\b", "127.0.0.1", json.dumps(body)))
