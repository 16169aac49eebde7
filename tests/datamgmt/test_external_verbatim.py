"""Values of external programs and insights of tools are stored and returned byte for byte."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from hypothesis import HealthCheck, given, settings

from mao_datamgmt.manager import DataManager
from mao_shared import keys
from mao_shared.clients.gateway import MaoClient
from mao_shared.errors import MaoError
from mao_shared.json_text import render_json
from mao_shared.models import Dataset
from mao_shared.store.memory import MemoryStore
from mao_shared.store.records import dump
from tests.support.git import bare_repository, file_at, git
from tests.support.json_strategies import json_texts

from .conftest import Api, api_on
from .test_external import enrol
from .world import NODE

JSON = {"content-type": "application/json"}


class _ToApi(httpx.BaseTransport):
    """Forward the Python client's calls to the app."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        answer = self._api.post(request.url.path, content=request.read(), headers=dict(request.headers))
        return httpx.Response(answer.status_code, content=answer.content, headers=JSON)


class Site:
    """Yield the data manager's API with a dataset `data` that accepts the key `k`."""

    def __init__(self, api: Api, inbox: Path) -> None:
        self.api, self._inbox = api, inbox
        self._manager: DataManager = api.app.state.manager

    def post(self, value: str, **headers: str) -> httpx.Response:
        content = f' {{"value" : {value} , "key": "k"}}\r\n'.encode()
        return self.api.post("/write", content=content, headers=JSON | headers)

    def stored(self, receipt: str) -> str:
        """Return the text of the pending value with this id."""
        line = (self._inbox / f"{receipt}.json").read_text()
        return line.partition('"value":')[2].removesuffix("}")

    def waiting(self) -> int:
        return len(list(self._inbox.glob("*.json")))

    def committed(self) -> list[str]:
        """Return the texts of all values once none is pending."""
        self.api.run(self._manager.ingest.commit_all())
        clone = self._manager.context.data.clone("data")
        names = git(clone, "ls-tree", "-r", "--name-only", NODE, "external/k/").splitlines()
        lines = [line for name in names for line in file_at(clone, f"{NODE}:{name}").splitlines()]
        return [line.partition('"value":')[2].removesuffix("}") for line in lines]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    store = MemoryStore()
    master = bare_repository(tmp_path / "master.git")
    record = Dataset(name="data", master=str(master), nodes=[NODE], external=["k"])
    with api_on(tmp_path, store) as api:
        assert api.run(store.create(keys.registry("datasets", "data"), dump(record))) is not None
        yield Site(api, tmp_path / "node" / "inbox" / "data")


@given(value=json_texts())
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_external_write_keeps_what_was_sent(site: Site, value: str) -> None:
    answer = site.post(value)
    assert answer.status_code == 202, answer.text
    assert site.stored(answer.json()["id"]) == value


def test_external_write_commits_what_was_sent_as_lines(site: Site) -> None:
    sent = [
        "1.10",
        "1e500",
        "-1e-500",
        "12345678901234567890",
        '{"b": -0.0,"a":[1E5, "\\u00e4" ]}',
        "9" * 4000,
    ]
    for value in [*sent, '{\r\n  "a": 1.10,\r\n\t"b": "x  y"\n}']:
        assert site.post(value).status_code == 202
    assert site.committed() == [*sent, '{"a": 1.10,"b": "x  y"}']


@pytest.mark.parametrize(
    "value",
    ["NaN", "[-Infinity]", '"\\ud800"', '{"a":"\\udc00\\ud83d"}', "9" * 4301, '{"a":1,"a":1.0}', "1,2"],
)
def test_external_write_refuses_what_json_cannot_hold(site: Site, value: str) -> None:
    answer = site.post(value)
    assert answer.status_code in (400, 422)
    assert answer.json()["next"]
    assert site.waiting() == 0


def test_external_write_idempotency_key_compares_spellings(site: Site) -> None:
    key = {"idempotency-key": "one"}
    first = site.post('{"a": 1.10}', **key)
    again = site.post('{ "a":1.10 }', **key)
    other = site.post('{"a": 1.1}', **key)
    assert (first.status_code, again.json()) == (202, first.json())
    assert (other.status_code, other.json()["code"]) == (422, "idempotency-key-reused")
    for left, right in (("1e500", "null"), ("1e500", "1e501"), ('{"a":1e-500}', '{"a":0}')):
        key = {"idempotency-key": left + right}
        assert site.post(left, **key).status_code == 202
        assert site.post(right, **key).status_code == 422
    assert site.committed() == ['{"a": 1.10}', "1e500", "1e500", '{"a":1e-500}']


def test_external_write_limits_the_body(site: Site) -> None:
    assert site.post(f'"{"x" * (1 << 20)}"').status_code == 413


@given(value=json_texts((*("", " "), "\n", "\r\n  ")))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
def test_external_write_json_of_the_client_keeps_what_it_was_given(site: Site, value: str) -> None:
    with MaoClient("http://datamgmt", transport=_ToApi(site.api)) as client:
        receipt = client.external.write_json("k", value)
    assert "".join(site.stored(receipt.id).split()) == "".join(value.split())
    assert json.loads(site.stored(receipt.id), parse_float=str, parse_int=str) == json.loads(
        value, parse_float=str, parse_int=str
    )


def test_external_write_json_of_the_client_sends_one_value_only(site: Site) -> None:
    with MaoClient("http://datamgmt", transport=_ToApi(site.api)) as client:
        for text in ('1,"key":"other"', "NaN", "", "{"):
            with pytest.raises(ValueError, match=r".") as raised:
                client.external.write_json("k", text)
            assert not isinstance(raised.value, MaoError)
    assert site.waiting() == 0


@pytest.mark.parametrize(
    "value", ['{"mean": 1.10, "n": 12345678901234567890}', "[1e500, -1E-500, -0.0]", '"\\u00e4"', "9" * 4000]
)
def test_external_read_and_inspect_show_what_the_tool_wrote(tmp_path: Path, value: str) -> None:
    store = MemoryStore()
    with api_on(tmp_path, store) as api:
        master = Path(api.post("/bare-repo/init", json={"name": "data"}).json()["master"])
        work = tmp_path / "work"
        git(tmp_path, "clone", "-q", str(master), str(work))
        git(work, "checkout", "-q", "--orphan", NODE)
        (work / "insights.json").write_bytes(b"\xef\xbb\xbf" + value.encode() + b"\n")
        git(work, "add", "-A")
        git(work, "commit", "-qm", "x")
        git(work, "push", "-q", "origin", NODE)
        api.put("/datasets/data", json={"name": "data", "master": str(master)})
        api.run(enrol(store, "probe", master))
        assert f'"value":{value},' in api.post("/read", json={"key": "probe"}).text
        assert f'"value":{value},' in api.post("/inspect", json={}).text
        with MaoClient("http://datamgmt", transport=_ToApi(api)) as client:
            found = [client.external.read("probe"), *client.external.inspect()]
        spelt = [render_json(item.value) for item in found]
        assert spelt == [value, value] or value == '"\\u00e4"'
        assert [item.size for item in found] == [len(value) + 4] * 2
