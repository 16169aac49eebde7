"""What pages show of others, and more of it than a test can wait for: written to remotes and stores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from mao_shared import keys
from mao_shared.models import GROUND_TRUTH, Alarm, Member
from mao_shared.models.federation import PeerRuns, RunBrief
from mao_shared.store import Records, open_store
from mao_shared.store.records import dump
from tests.support.node import NativeNode
from tests.vote.repo import TICK, Files, new_repository, vote

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


def make_rounds(node: NativeNode, root: Path, name: str, versions: Sequence[Mapping[str, Files]]) -> None:
    """Make a dataset whose ground truth was decided by rounds at the remote; the node clones it."""
    master = new_repository(root / f"{name}.git")
    tip = None
    for number, files in enumerate(versions):
        tick = TICK + timedelta(hours=number)
        made = vote(master, files, tip, round_id=f"{tick:%Y%m%dT%H%M%SZ}-crawl-collect", tick=tick)
        tip = made.commit
        for voter, commit in made.evidence.commits.items():  # the audit reads them
            master.move_branch(voter, commit, master.tip(voter))
    assert tip is not None
    master.move_branch(GROUND_TRUTH, tip, None)
    answer = node.http.put(f"/datasets/{name}", json={"name": name, "master": str(master.path)}, timeout=60)
    assert answer.status_code == 200, answer.text


def alarm(name: str = "20260131T120000Z-crawl-0c8f11b7.run-failed", **fields: Any) -> Alarm:
    given: dict[str, Any] = {"kind": "run-failed", "detail": "exit code 1"} | fields
    return Alarm(id=name, node="node-1", raised_at=NOW, **given)


async def put_alarms(node: NativeNode, alarms: Sequence[Alarm]) -> None:
    store = open_store(node.etcd)
    try:
        records = Records(store, keys.alarms_prefix(node.name), Alarm)
        for each in alarms:
            await records.create(each.id, each)
    finally:
        await store.close()


async def put_peer_runs(node: NativeNode, peer: str, pipeline: str, runs: Sequence[RunBrief]) -> None:
    """Write what another node tells of its runs of a pipeline."""
    now = datetime.now(UTC)
    store = open_store(node.etcd)
    try:
        await store.create(keys.member(peer), dump(Member(name=peer, version="1", started_at=now)))
        told = PeerRuns(node=peer, pipeline=pipeline, runs=list(runs), updated_at=now)
        await store.create(keys.peer_runs(peer, pipeline), dump(told))
    finally:
        await store.close()
