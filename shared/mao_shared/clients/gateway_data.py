"""MaoClient's calls about data: datasets and their contents, rounds, external data."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol, TypeVar

import httpx

from mao_shared.json_text import check_json, render_json
from mao_shared.models import Dataset, evidence
from mao_shared.models.alarm import Spikes
from mao_shared.models.check import QuarantineDecision, QuarantinedSnapshot
from mao_shared.models.common import format_time
from mao_shared.models.dataset import (
    BareRepository,
    BareRequest,
    CommitInfo,
    DatasetDiff,
    DatasetStatus,
    FileInfo,
    FilePreview,
    Resolution,
    ResolveRequest,
    SetAside,
    ValueVersion,
)
from mao_shared.models.external import ExternalState, Insight, InsightQuery, Receipt, RemoteCheck, RemoteState
from mao_shared.models.round import LiveRounds
from mao_shared.models.schema import Schema

from .gateway_http import GatewayHttp, Params, Resource, compact, url_path
from .responses import parse_record, read_verbatim_json, request_body
from .services import CLONE_TIMEOUT

COMPUTE_TIMEOUT = 900.0  # seconds; an audit recomputes a whole round
LATEST_ROUND = "latest"
MAX_PAGE_SIZE = 1000  # items
Page = TypeVar("Page", evidence.RoundPage, evidence.CellPage, LiveRounds)


class BinaryWriter(Protocol):
    """Anything with the `write` method of a binary file."""

    def write(self, data: bytes, /) -> int: ...


class DatasetCalls(Resource[Dataset]):
    """Registered datasets, their clones on this node, and their contents."""

    def __init__(self, http: GatewayHttp) -> None:
        super().__init__(http, "/registry/datasets", Dataset)

    # The clones on this node

    def statuses(self) -> Iterator[DatasetStatus]:
        return self.http.pages("/datasets", DatasetStatus)

    def status(self, name: str) -> DatasetStatus:
        """Return the state of a dataset on this node. Raises NotFound if it has no clone here."""
        return self.http.get(url_path("datasets", name), DatasetStatus)

    def ensure(self, dataset: Dataset) -> DatasetStatus:
        """Make the node's clone match the record; clone the dataset if necessary."""
        path = url_path("datasets", dataset.name)
        body = dataset.model_dump(mode="json", exclude_none=True)
        return self.http.call("PUT", path, DatasetStatus, json=body, timeout=CLONE_TIMEOUT)

    def push(self, name: str) -> DatasetStatus:
        """Push the commits that wait for the dataset's remote, and return its new status."""
        return self.http.call("POST", url_path("datasets", name, "push"), DatasetStatus)

    def acknowledge(self, name: str) -> DatasetStatus:
        """Acknowledge broken clones that were set aside, and branches that were rewritten at the remote."""
        return self.http.call("POST", url_path("datasets", name, "acknowledge"), DatasetStatus)

    def go_alone(self, name: str) -> DatasetStatus:
        """Let this node alone decide the dataset's ground truth, and return its new status."""
        return self.http.call("POST", url_path("datasets", name, "alone"), DatasetStatus)

    def resolve(self, name: str, how: str) -> Resolution:
        """Reconcile the node's branch with the remote's. `how`: merge, replay or take-theirs."""
        path, body = url_path("datasets", name, "resolve"), request_body(ResolveRequest, how=how)
        return self.http.call("POST", path, Resolution, json=body)

    def quarantined(self, name: str, state: str | None = None) -> Iterator[QuarantinedSnapshot]:
        """Yield this node's quarantined snapshots, newest first. `state`: waiting, accepted or discarded."""
        return self.http.pages(
            url_path("datasets", name, "quarantine"), QuarantinedSnapshot, {"state": state}
        )

    def quarantined_snapshot(self, name: str, snapshot: str) -> QuarantinedSnapshot:
        """Return a quarantined snapshot by its commit, 7 digits or more, or its run."""
        return self.http.get(url_path("datasets", name, "quarantine", snapshot), QuarantinedSnapshot)

    def accept_quarantined(
        self, name: str, snapshot: str, *, by: str = "", note: str = ""
    ) -> QuarantinedSnapshot:
        """Publish a quarantined snapshot on top of the node's branch."""
        return self._decide(name, snapshot, "accept", by, note)

    def discard_quarantined(
        self, name: str, snapshot: str, *, by: str = "", note: str = ""
    ) -> QuarantinedSnapshot:
        """Discard a quarantined snapshot; its commit stays in the quarantine branch."""
        return self._decide(name, snapshot, "discard", by, note)

    def _decide(self, name: str, snapshot: str, verb: str, by: str, note: str) -> QuarantinedSnapshot:
        path = url_path("datasets", name, "quarantine", snapshot, verb)
        body = request_body(QuarantineDecision, by=by, note=note)
        return self.http.call("POST", path, QuarantinedSnapshot, json=body)

    def set_aside(self, name: str) -> SetAside:
        """Set aside the node's clone of a dataset that is no longer used."""
        return self.http.call("POST", url_path("datasets", name, "set-aside"), SetAside)

    def init_bare_repository(self, name: str) -> BareRepository:
        """Create a bare repository on the node; its `master` serves as a dataset's remote."""
        return self.http.call(
            "POST", "/bare-repo/init", BareRepository, json=request_body(BareRequest, name=name)
        )

    def check_remote(self, master: str) -> RemoteState:
        """Check whether a repository can be a dataset's remote.

        Raises InvalidInput, Forbidden or RemoteUnavailable if it cannot.
        """
        body = request_body(RemoteCheck, master=master)
        return self.http.call("POST", "/remotes/check", RemoteState, json=body)

    # Contents

    def log(self, name: str, branch: str | None = None) -> Iterator[CommitInfo]:
        """Yield the commits of a branch, newest first; pages are fetched as the caller reads on."""
        return self.http.pages(url_path("datasets", name, "log"), CommitInfo, {"branch": branch})

    def files(
        self, name: str, *, ref: str | None = None, path: str | None = None, details: bool | None = None
    ) -> Iterator[FileInfo]:
        """Yield the entries of a folder. `details`: also when each was changed last."""
        params = {"ref": ref, "path": path, "details": details}
        return self.http.pages(url_path("datasets", name, "files"), FileInfo, params)

    def preview(
        self, name: str, path: str, *, ref: str | None = None, offset: int = 0, limit: int = 20
    ) -> FilePreview:
        """Return the beginning of a file: the first records of a table, or its first text."""
        params = {"path": path, "ref": ref, "offset": offset, "limit": limit}
        return self.http.get(url_path("datasets", name, "preview"), FilePreview, params)

    def history(
        self,
        name: str,
        file: str,
        key: str,
        field: str,
        *,
        branch: str | None = None,
        by: Sequence[str] = (),
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int | None = None,
    ) -> Iterator[ValueVersion]:
        """Yield what a field of a record was in each commit of a branch that changed its file, newest first.

        The node finds them while the caller reads on. Raises NotFound and InvalidInput if there is no such
        value in any version.

        Args:
            key: of the record; `a,b` or a JSON list for two key columns, a path in a JSON document.
            by: the key columns, if they are not to be inferred.
            since, until: times of commits.
        """
        params = compact({"file": file, "key": key, "field": field, "branch": branch, "limit": limit})
        params |= {"by": list(by)} if by else {}
        params |= compact({"since": since and format_time(since), "until": until and format_time(until)})
        where = url_path("datasets", name, "history")
        with self.http.stream(where, params, timeout=COMPUTE_TIMEOUT) as response:
            for line in _lines(response.iter_bytes()):
                yield parse_record(response, json.loads(line), ValueVersion)

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
        """Compare the commits `before` (default: ground-truth) and `after` (default: the node's branch).

        `path`: a folder, or a file to compare by `method`: auto, rows or lines. `limit`: at most this many
        files, rows or lines; without it, all files and the node's default of rows or lines.
        """
        params = {"from": before, "to": after, "path": path, "as": method, "key": key or None, "limit": limit}
        where = url_path("datasets", name, "diff")
        found = self.http.get(where, DatasetDiff, params)
        while found.cursor and limit is None:
            more = self.http.get(where, DatasetDiff, params | {"cursor": found.cursor})
            found.files += more.files
            found.cursor = more.cursor
        return found

    def download(
        self,
        name: str,
        path: str,
        out: BinaryWriter | Path,
        *,
        ref: str | None = None,
        on_size: Callable[[int], None] = lambda _: None,
    ) -> int:
        """Write a file of the dataset to `out`; return the number of bytes. `on_size`: told it before."""
        params = compact({"ref": ref, "path": path})
        where = url_path("datasets", name, "file")
        with self.http.stream(where, params) as response, _opened(out) as target:
            if (length := response.headers.get("content-length", "")).isdecimal():
                on_size(int(length))
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
        """Write a folder of the dataset (default: all) to `out` as an archive; return the number of bytes.

        `packing`: tar.gz or zip.
        """
        params = compact({"ref": ref, "path": path, "format": packing})
        with self.http.stream(url_path("datasets", name, "archive"), params) as response:
            return sum(out.write(piece) for piece in response.iter_raw())


def _lines(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the lines that are not empty; only a line feed ends one, as others are allowed in JSON."""
    pending = b""
    for piece in pieces:
        *complete, pending = (pending + piece).split(b"\n")
        yield from filter(None, complete)
    if pending:
        yield pending


@contextmanager
def _opened(out: BinaryWriter | Path) -> Iterator[BinaryWriter]:
    if isinstance(out, Path):
        with out.open("wb") as target:
            yield target
    else:
        yield out


class RoundCalls:
    """Rounds, which decide datasets' ground truth.

    `round_id`: an id, or the beginning of one; None for the latest round.
    """

    def __init__(self, http: GatewayHttp) -> None:
        self.http = http

    def decided(self, dataset: str, limit: int) -> list[evidence.RoundSummary]:
        """Return the latest `limit` decided rounds of a dataset, newest first."""
        pages = self._pages(url_path("datasets", dataset, "rounds"), evidence.RoundPage, limit)
        return [item for page in pages for item in page.items]

    def unattested(self, dataset: str) -> evidence.UnattestedCommits | None:
        """Return the commits of ground truth that no round made; None before the first round."""
        return self.http.get(url_path("datasets", dataset, "rounds"), evidence.RoundPage, {"limit": 1}).strays

    def live(self, dataset: str | None = None, phase: str | None = None, limit: int = 100) -> LiveRounds:
        """Return the state of rounds, decided or not, newest first.

        Also how many snapshots of this node wait to be announced.
        """
        first, *more = self._pages("/rounds", LiveRounds, limit, {"dataset": dataset, "phase": phase})
        return first.model_copy(update={"items": [item for page in (first, *more) for item in page.items]})

    def get(self, dataset: str, round_id: str | None) -> evidence.DecidedRound:
        """Return a decided round and its evidence."""
        return self.http.get(_round(dataset, round_id), evidence.DecidedRound)

    def cells(
        self, dataset: str, round_id: str | None, file: str | None, limit: int, *, contested: bool = False
    ) -> list[evidence.ContestedCell]:
        """Return the first `limit` cells in which nodes differ, with every node's value.

        Args:
            contested: only cells in which no value has a majority.
        """
        params: Params = {"file": file, "contested": contested or None}
        pages = self._pages(_round(dataset, round_id, "cells"), evidence.CellPage, limit, params)
        return [item for page in pages for item in page.items]

    def cell(
        self, dataset: str, round_id: str | None, file: str, key: str, field: str
    ) -> evidence.Explanation:
        """Explain how one value was decided."""
        path = _round(dataset, round_id, "cell")
        return self.http.get(path, evidence.Explanation, {"file": file, "key": key, "field": field})

    def audit(self, dataset: str, round_id: str | None) -> evidence.Audit:
        """Recompute a round, and compare the resulting commit."""
        return self.http.get(_round(dataset, round_id, "audit"), evidence.Audit, timeout=COMPUTE_TIMEOUT)

    def schema(self, dataset: str, round_id: str | None, files: Sequence[str]) -> Schema:
        """Describe files (none: all record files) of a round: keys, and what the fields are."""
        path = _round(dataset, round_id, "schema")
        return self.http.get(path, Schema, {"file": list(files) or None}, timeout=COMPUTE_TIMEOUT)

    def ranking(self, dataset: str, rounds: int) -> evidence.Ranking:
        """Rank nodes by how unusually often they differ from the decisions of the last `rounds`."""
        return self.http.get(url_path("datasets", dataset, "ranking"), evidence.Ranking, {"rounds": rounds})

    def spikes(self, dataset: str, rounds: int) -> Spikes:
        """Find spikes in the control metrics of the last `rounds`, and the nodes that cause them."""
        return self.http.get(url_path("datasets", dataset, "spikes"), Spikes, {"rounds": rounds})

    def _pages(self, path: str, model: type[Page], limit: int, params: Params = None) -> Iterator[Page]:
        """Yield pages until they hold `limit` items; at least one page if `limit` is positive."""
        cursor: str | None = None
        while limit > 0:
            query = {**(params or {}), "limit": min(limit, MAX_PAGE_SIZE), "cursor": cursor}
            page = self.http.get(path, model, query)
            yield page
            limit -= len(page.items)
            cursor = page.cursor
            if cursor is None:
                return


def _round(dataset: str, round_id: str | None, *more: str) -> str:
    return url_path("datasets", dataset, "rounds", round_id or LATEST_ROUND, *more)


class ExternalDataCalls:
    """Values from external programs, and the insights that tools leave for them."""

    def __init__(self, http: GatewayHttp) -> None:
        self.http = http

    def write_json(self, key: str, text: str, *, idempotency_key: str | None = None) -> Receipt:
        """Send a value as JSON text, byte for byte; it is on the node's disk when this returns.

        Raises ValueError if `text` is not JSON.
        """
        check_json(text)
        headers = compact({"Idempotency-Key": idempotency_key, "Content-Type": "application/json"})
        body = f'{{"key":{json.dumps(key)},"value":{text}}}'.encode()
        return self.http.call("POST", "/write", Receipt, content=body, headers=headers)

    def read(self, key: str, *, dataset: str | None = None) -> Insight:
        """Return a tool's insight; numbers in its `value` are kept as by `json_text.parse_json`."""
        response = self.http.send("POST", "/read", json=request_body(InsightQuery, key=key, dataset=dataset))
        return _insight(response, read_verbatim_json(response))

    def inspect(self, key: str | None = None, *, dataset: str | None = None) -> list[Insight]:
        """Return the insights of all tools on all nodes, or of those that `key` names."""
        body = request_body(InsightQuery, key=key, dataset=dataset)
        response = self.http.send("POST", "/inspect", json=body)
        return [_insight(response, item) for item in read_verbatim_json(response)["items"]]

    def state(self, dataset: str) -> ExternalState:
        """Return the keys that a dataset declares, and the values that wait for it."""
        return self.http.get(url_path("datasets", dataset, "external"), ExternalState)


def _insight(response: httpx.Response, document: dict[str, Any]) -> Insight:
    """Return the record; only the numbers in its `value` are kept as they are spelt."""
    others = {name: field for name, field in document.items() if name != "value"}
    insight = parse_record(response, json.loads(render_json(others)), Insight)
    return insight.model_copy(update={"value": document["value"]}) if "value" in document else insight
