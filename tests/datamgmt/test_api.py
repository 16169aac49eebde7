"""The data manager's HTTP API."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mao_datamgmt.app import make_app
from mao_shared.errors import Conflict
from mao_shared.models.progress import OngoingWork
from mao_shared.progress import OngoingRequests
from mao_shared.request_context import current_request_id
from mao_shared.store.memory import MemoryStore
from tests.support.git import git

from .conftest import Api
from .world import NODE, settings_for


@pytest.fixture(scope="module")
def few_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create a repository with three commits on ground-truth."""
    work = tmp_path_factory.mktemp("work")
    git(work, "init", "-q", "-b", "ground-truth")
    (work / "d").mkdir()
    for name in ("a.csv", "b.html", "d/c"):
        (work / name).write_text(name)
        git(work, "add", "-A")
        git(work, "commit", "-qm", f"Add {name}")
    return work


@pytest.fixture
def dataset(api: Api, few_files: Path) -> Path:
    """A dataset `data` on this node with a few files on ground-truth; its remote."""
    master = Path(api.post("/bare-repo/init", json={"name": "data"}).json()["master"])
    git(few_files, "push", "-q", str(master), "ground-truth")
    answer = api.put("/datasets/data", json={"name": "data", "master": str(master)})
    assert answer.status_code == 200, answer.text
    return master


class LastWork(OngoingRequests):
    """Keeps how far each piece of work was at its end."""

    def __init__(self) -> None:
        super().__init__()
        self.ended: list[OngoingWork] = []

    @contextmanager
    def track(self, work: OngoingWork) -> Iterator[None]:
        with super().track(work):
            yield
            self.ended += self.of(current_request_id() or "")


def test_api_clone_says_how_far_it_is(api: Api, few_files: Path) -> None:
    ongoing = api.app.state.ongoing = LastWork()
    master = Path(api.post("/bare-repo/init", json={"name": "data"}).json()["master"])
    git(few_files, "push", "-q", str(master), "ground-truth")
    assert api.put("/datasets/data", json={"name": "data", "master": str(master)}).status_code == 200
    objects = len(git(few_files, "rev-list", "--objects", "ground-truth").splitlines())
    assert [(work.what, work.subject, work.unit) for work in ongoing.ended] == [("clone", "data", "objects")]
    assert (ongoing.ended[0].done, ongoing.ended[0].total) == (objects, objects)


def test_api_bare_repository(api: Api) -> None:
    made = api.post("/bare-repo/init", json={"name": "data"})
    assert made.status_code == 201
    master = Path(made.json()["master"])
    assert git(master, "symbolic-ref", "HEAD") == "refs/heads/ground-truth"
    again = api.post("/bare-repo/init", json={"name": "data"})
    assert (again.status_code, again.json()["code"]) == (409, "already-exists")
    assert again.json()["next"]


def test_api_bare_repository_with_a_key_is_made_once(api: Api) -> None:
    answers = [
        api.post("/bare-repo/init", json={"name": "data"}, headers={"Idempotency-Key": "k"}) for _ in range(2)
    ]
    assert [answer.status_code for answer in answers] == [201, 201]
    assert answers[0].json() == answers[1].json()


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".new-x", "x" * 300, "a b"])
def test_api_bare_repository_with_a_bad_name(api: Api, name: str) -> None:
    answer = api.post("/bare-repo/init", json={"name": name})
    assert answer.status_code == 422
    assert answer.json()["next"]


def test_api_status(api: Api, dataset: Path) -> None:
    status = api.get("/datasets/data").json()
    assert status["master"] == str(dataset)
    assert [branch["name"] for branch in status["branches"]] == ["ground-truth", NODE]
    assert {branch["commit"] for branch in status["branches"]} == {git(dataset, "rev-parse", NODE)}
    assert (status["unpushed"], status.get("failure")) == (0, None)
    assert status["size"] > 0
    assert [item["name"] for item in api.get("/datasets").json()["items"]] == ["data"]


def test_api_ensure_refuses_a_body_of_another_name(api: Api) -> None:
    answer = api.put("/datasets/data", json={"name": "other", "master": "/x"})
    assert (answer.status_code, answer.json()["code"]) == (422, "name-mismatch")


@pytest.mark.parametrize(
    ("master", "code"),
    [
        ("ext::sh -c id", "dataset-url-refused"),
        ("/nowhere/x.git", "remote-not-allowed"),
        ("{here}/x.git", "dataset-unreachable"),
        ("https://127.0.0.1:1/x.git", "remote-unavailable"),
    ],
)
def test_api_ensure_with_a_bad_master(api: Api, tmp_path: Path, master: str, code: str) -> None:
    master = master.replace("{here}", str(tmp_path))
    answer = api.put("/datasets/data", json={"name": "data", "master": master})
    assert answer.json()["code"] == code
    assert answer.json()["next"]
    assert api.get("/datasets/data").json()["code"] == "dataset-not-here"


def test_api_log_page_by_page(api: Api, dataset: Path) -> None:
    first = api.get("/datasets/data/log", params={"limit": 2}).json()
    assert [entry["subject"] for entry in first["items"]] == ["Add d/c", "Add b.html"]
    rest = api.get("/datasets/data/log", params={"limit": 2, "cursor": first["cursor"]}).json()
    assert [entry["subject"] for entry in rest["items"]] == ["Add a.csv"]
    assert rest.get("cursor") is None


def test_api_files_page_by_page(api: Api, dataset: Path) -> None:
    first = api.get("/datasets/data/files", params={"limit": 2}).json()
    assert [(entry["name"], entry["kind"], entry["size"]) for entry in first["items"]] == [
        ("a.csv", "file", 5),
        ("b.html", "file", 6),
    ]
    rest = api.get("/datasets/data/files", params={"limit": 2, "cursor": first["cursor"]}).json()
    assert [(entry["path"], entry["kind"]) for entry in rest["items"]] == [("d", "folder")]
    below = api.get("/datasets/data/files", params={"path": "d", "ref": NODE}).json()
    assert [entry["path"] for entry in below["items"]] == ["d/c"]


def test_api_file_is_a_download(api: Api, dataset: Path) -> None:
    answer = api.get("/datasets/data/file", params={"path": "b.html"})
    assert answer.content == b"b.html"
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"].startswith("attachment;")
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("path", "params", "status", "code"),
    [
        ("files", {"ref": "../../etc"}, 422, "ref-invalid"),
        ("files", {"ref": "HEAD@{1}"}, 422, "ref-invalid"),
        ("files", {"ref": "-x"}, 422, "ref-invalid"),
        ("files", {"ref": "none"}, 404, "ref-not-found"),
        ("files", {"ref": "0" * 40}, 404, "ref-not-found"),
        ("files", {"path": "../../etc"}, 404, "path-not-found"),
        ("files", {"path": "a.csv"}, 422, "path-not-a-folder"),
        ("files", {"cursor": "none"}, 422, "cursor-invalid"),
        ("file", {"path": "d"}, 422, "path-not-a-file"),
        ("file", {"path": "/etc/passwd"}, 404, "path-not-found"),
        ("file", {"path": "a\0b"}, 404, "path-not-found"),
        ("file", {"path": "\udc80x"}, 404, "path-not-found"),
        ("log", {"cursor": "zzz"}, 404, "ref-not-found"),
        ("log", {"limit": "0"}, 422, None),
    ],
)
def test_api_bad_questions(
    api: Api, dataset: Path, path: str, params: dict[str, str], status: int, code: str | None
) -> None:
    if "\udc80" in params.get("path", ""):
        answer = api.get(f"/datasets/data/{path}?path=%80x")
    else:
        answer = api.get(f"/datasets/data/{path}", params=params)
    assert answer.status_code == status, answer.text
    assert code is None or answer.json()["code"] == code
    assert answer.json()["next"]


def test_api_dataset_that_is_not_here(api: Api) -> None:
    answer = api.get("/datasets/none/log")
    assert (answer.status_code, answer.json()["code"]) == (404, "dataset-not-here")


def test_api_second_one_on_the_same_data_does_not_start(api: Api, tmp_path: Path) -> None:
    assert api.get("/readyz").status_code == 200
    second = make_app(settings_for(tmp_path), store=MemoryStore())
    with pytest.raises(Conflict, match="Another datamgmt is already running"):
        asyncio.run(second.router.lifespan_context(second).__aenter__())


def test_api_ready(api: Api) -> None:
    assert api.get("/readyz").status_code == 200
    assert "bare.init" in api.get("/openapi.json").text
