"""The calls of MaoClient about data: datasets and their contents, rounds, data of programs outside."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

import httpx

from mao_shared.json_text import check_json, render_json
from mao_shared.models import Dataset, evidence
from mao_shared.models.alarm import Spikes
from mao_shared.models.dataset import (
    BareRepository,
    CommitInfo,
    DatasetDiff,
    DatasetStatus,
    FileInfo,
    Resolution,
    SetAside,
)
from mao_shared.models.external import ExternalState, Insight, Receipt, RemoteState
from mao_shared.models.round import LiveRounds

from .gateway_http import GatewayHttp, Params, Resource, compact, url_path
from .responses import parse_record, read_verbatim_json
from .services import CLONE_TIMEOUT

COMPUTE_TIMEOUT = 900.0  # seconds; an audit reads and decides all that differed
LATEST = "latest"
MAX_PAGE = 1000  # items
Page = TypeVar("Page", evidence.RoundPage, evidence.CellPage, LiveRounds)


class BinaryWriter(Protocol):
    """What content can be written to, piece by piece: a binary file, for example."""

    def write(self, data: bytes, /) -> int: ...


class DatasetCalls(Resource[Dataset]):
    """Registered datasets, their clones on this node, and what is in them."""

    def __init__(self, http: GatewayHttp) -> None:
        super().__init__(http, "/registry/datasets", Dataset)

    # The clones on this node

    def statuses(self) -> Iterator[DatasetStatus]:
        return self.http.pages("/datasets", DatasetStatus)

    def status(self, name: str) -> DatasetStatus:
        """Raises NotFound without a clone here."""
        return self.http.get(url_path("datasets", name), DatasetStatus)

    def ensure(self, dataset: Dataset) -> DatasetStatus:
        """Makes the node's clone match the record; clones it if missing."""
        path, document = (
            url_path("datasets", dataset.name),
            dataset.model_dump(mode="json", exclude_none=True),
        )
        return self.http.call("PUT", path, DatasetStatus, json=document, timeout=CLONE_TIMEOUT)

    def push(self, name: str) -> DatasetStatus:
        """Pushes what waits for the dataset's remote; its status after that."""
        return self.http.call("POST", url_path("datasets", name, "push"), DatasetStatus)

    def acknowledge(self, name: str) -> DatasetStatus:
        """Acknowledges broken clones that were set aside, and branches that went back at the remote."""
        return self.http.call("POST", url_path("datasets", name, "acknowledge"), DatasetStatus)

    def go_alone(self, name: str) -> DatasetStatus:
        """Lets the node alone decide the dataset's ground truth from now on; its status after that."""
        return self.http.call("POST", url_path("datasets", name, "alone"), DatasetStatus)

    def resolve(self, name: str, how: str) -> Resolution:
        """`how`: merge, replay or take-theirs."""
        return self.http.call("POST", url_path("datasets", name, "resolve"), Resolution, json={"how": how})

    def set_aside(self, name: str) -> SetAside:
        """Puts the node's clone of a dataset away that is not used any more."""
        return self.http.call("POST", url_path("datasets", name, "set-aside"), SetAside)

    def init_bare_repository(self, name: str) -> BareRepository:
        """Makes a local bare repository; its `master` serves as a dataset's remote."""
        return self.http.call("POST", "/bare-repo/init", BareRepository, json={"name": name})

    def check_remote(self, master: str) -> RemoteState:
        """Raises InvalidInput, Forbidden or RemoteUnavailable when it cannot be a dataset's remote."""
        return self.http.call("POST", "/remotes/check", RemoteState, json={"master": master})

    # Contents

    def log(self, name: str, branch: str | None = None) -> Iterator[CommitInfo]:
        """The commits of a branch, newest first, page by page as far as the caller reads."""
        return self.http.pages(url_path("datasets", name, "log"), CommitInfo, {"branch": branch})

    def files(self, name: str, *, ref: str | None = None, path: str | None = None) -> Iterator[FileInfo]:
        return self.http.pages(url_path("datasets", name, "files"), FileInfo, {"ref": ref, "path": path})

    def diff(
        self,
        name: str,
        before: str | None = None,
        after: str | None = None,
        *,
        path: str | None = None,
        method: str | None = None,
        key: Sequence[str] = (),
        limit: int | None = None,
    ) -> DatasetDiff:
        """What differs from `before` (else ground-truth) to `after` (else the node's branch).

        `method`: auto, rows or lines. All files, whatever the limit of one page, unless `limit` is given; of
        one file the first `limit` rows or lines.
        """
        params = {"from": before, "to": after, "path": path, "as": method, "key": key or None, "limit": limit}
        where = url_path("datasets", name, "diff")
        found = self.http.get(where, DatasetDiff, params)
        while found.cursor and limit is None:
            more = self.http.get(where, DatasetDiff, params | {"cursor": found.cursor})
            found.files += more.files
            found.cursor = more.cursor
        return found

    def download(self, name: str, path: str, out: BinaryWriter | Path, *, ref: str | None = None) -> int:
        """Writes a file of the dataset to `out`; the number of bytes."""
        params = compact({"ref": ref, "path": path})
        where = url_path("datasets", name, "file")
        with self.http.stream(where, params) as response, _opened(out) as target:
            return sum(target.write(piece) for piece in response.iter_bytes())

    def archive(
        self,
        name: str,
        out: BinaryWriter,
        *,
        ref: str | None = None,
        path: str | None = None,
        packing: str = "tar.gz",
    ) -> int:
        """Writes a folder of the dataset (or all of it) to `out` as tar.gz or zip; the number of bytes."""
        params = compact({"ref": ref, "path": path, "format": packing})
        with self.http.stream(url_path("datasets", name, "archive"), params) as response:
            return sum(out.write(piece) for piece in response.iter_raw())


@contextmanager
def _opened(out: BinaryWriter | Path) -> Iterator[BinaryWriter]:
    if isinstance(out, Path):
        with out.open("wb") as target:
            yield target
    else:
        yield out


class RoundCalls:
    """The rounds that decide datasets' ground truth. A round is named by its id or the beginning of one."""

    def __init__(self, http: GatewayHttp) -> None:
        self.http = http

    def decided(self, dataset: str, limit: int) -> list[evidence.RoundSummary]:
        """The newest decided rounds of a dataset, the newest first."""
        pages = self._pages(url_path("datasets", dataset, "rounds"), evidence.RoundPage, limit)
        return [item for page in pages for item in page.items]

    def unattested(self, dataset: str) -> evidence.UnattestedCommits | None:
        """What commits of ground truth no round made; None before the first round."""
        return self.http.get(url_path("datasets", dataset, "rounds"), evidence.RoundPage, {"limit": 1}).strays

    def live(self, dataset: str | None = None, phase: str | None = None, limit: int = 100) -> LiveRounds:
        """Rounds as they stand now, also those that are not decided, the newest first; and how many snapshots
        of this node have still to be announced."""
        first, *more = self._pages("/rounds", LiveRounds, limit, {"dataset": dataset, "phase": phase})
        return first.model_copy(update={"items": [item for page in (first, *more) for item in page.items]})

    def get(self, dataset: str, round_id: str | None) -> evidence.DecidedRound:
        """A decided round and its evidence; the newest without `round_id`."""
        return self.http.get(_round(dataset, round_id), evidence.DecidedRound)

    def cells(
        self, dataset: str, round_id: str | None, file: str | None, limit: int
    ) -> list[evidence.ContestedCell]:
        """The first cells over which nodes differed, with every node's value."""
        pages = self._pages(_round(dataset, round_id, "cells"), evidence.CellPage, limit, {"file": file})
        return [item for page in pages for item in page.items]

    def cell(
        self, dataset: str, round_id: str | None, file: str, key: str, field: str
    ) -> evidence.Explanation:
        """How one value was decided."""
        path = _round(dataset, round_id, "cell")
        return self.http.get(path, evidence.Explanation, {"file": file, "key": key, "field": field})

    def audit(self, dataset: str, round_id: str | None) -> evidence.Audit:
        """The round computed again, and whether the same commit comes out."""
        return self.http.get(_round(dataset, round_id, "audit"), evidence.Audit, timeout=COMPUTE_TIMEOUT)

    def ranking(self, dataset: str, rounds: int) -> evidence.Ranking:
        """Nodes by how unusually often they differ from what was decided in the last rounds."""
        return self.http.get(url_path("datasets", dataset, "ranking"), evidence.Ranking, {"rounds": rounds})

    def spikes(self, dataset: str, rounds: int) -> Spikes:
        """Spikes in the control metrics of the last rounds, and whose they are."""
        return self.http.get(url_path("datasets", dataset, "spikes"), Spikes, {"rounds": rounds})

    def _pages(self, path: str, model: type[Page], limit: int, params: Params = None) -> Iterator[Page]:
        """Pages until there are `limit` items; at least one."""
        cursor: str | None = None
        while limit > 0:
            asked = {**(params or {}), "limit": min(limit, MAX_PAGE), "cursor": cursor}
            page = self.http.get(path, model, asked)
            yield page
            limit -= len(page.items)
            cursor = page.cursor
            if cursor is None:
                return


def _round(dataset: str, round_id: str | None, *more: str) -> str:
    return url_path("datasets", dataset, "rounds", round_id or LATEST, *more)


class ExternalDataCalls:
    """Values of programs outside: handed over, and what tools left for them."""

    def __init__(self, http: GatewayHttp) -> None:
        self.http = http

    def write_json(self, key: str, text: str, *, idempotency_key: str | None = None) -> Receipt:
        """Hands a value over as JSON text, sent as it is spelt; it is on the node's disk when this returns.

        Raises ValueError for other text.
        """
        check_json(text)
        headers = compact({"Idempotency-Key": idempotency_key, "Content-Type": "application/json"})
        body = f'{{"key":{json.dumps(key)},"value":{text}}}'.encode()
        return self.http.call("POST", "/write", Receipt, content=body, headers=headers)

    def read(self, key: str, *, dataset: str | None = None) -> Insight:
        """What a tool left; numbers in its `value` are as `json_text.parse_json` keeps them."""
        response = self.http.send("POST", "/read", json=compact({"key": key, "dataset": dataset}))
        return _insight(response, read_verbatim_json(response))

    def inspect(self, key: str | None = None, *, dataset: str | None = None) -> list[Insight]:
        """All that tools left, on all nodes; `key` narrows it."""
        response = self.http.send("POST", "/inspect", json=compact({"key": key, "dataset": dataset}))
        return [_insight(response, each) for each in read_verbatim_json(response)["items"]]

    def state(self, dataset: str) -> ExternalState:
        """The keys that a dataset declares, and what waits for it."""
        return self.http.get(url_path("datasets", dataset, "external"), ExternalState)


def _insight(response: httpx.Response, document: dict[str, Any]) -> Insight:
    """Only the value's numbers are kept as they are spelt."""
    others = {name: field for name, field in document.items() if name != "value"}
    insight = parse_record(response, json.loads(render_json(others)), Insight)
    return insight.model_copy(update={"value": document["value"]}) if "value" in document else insight
