"""A member's violations are refused or outvoted, and the member is named."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mao_shared import keys
from mao_shared.errors import Forbidden, MaoError, Unauthorized
from mao_shared.models import Attestation, format_time
from mao_shared.store import Entry, Store, open_store
from mao_shared.store.endpoints import TlsFiles
from tests.support.docker import Engine
from tests.support.federated import SiteNode, lab, until
from tests.support.git import git
from tests.support.shared_pipeline import HONEST, SharedPipeline, share
from tests.support.sites import at_sites
from tests.support.tampered_voting import Tampered

pytestmark = at_sites(400)


@pytest.fixture(scope="module")
def tamper(tmp_path_factory: pytest.TempPathFactory) -> Tampered:
    return Tampered(tmp_path_factory.mktemp("tampered") / "votes")


@pytest.fixture
def tampered(tamper: Tampered) -> Iterator[Tampered]:
    yield tamper
    tamper.end()


@pytest.fixture(scope="module")
def shared(
    engine: Engine, tamper: Tampered, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SharedPipeline]:
    image = engine.build(HONEST)
    with lab(tmp_path_factory.mktemp("lab"), **tamper.env) as nodes:
        nodes.federate()
        yield share(nodes, image)


def acting_as(folder: Path, node: SiteNode, act: Callable[[Store], Awaitable[object]]) -> object:
    """Run `act` on the federation's store with the certificate in `folder`; return its result or error."""

    async def run() -> object:
        endpoints = ",".join(node.ask("federation", "show")["endpoints"])
        tls = TlsFiles(ca=folder / "ca.pem", certificate=folder / "client.pem", key=folder / "client.pem")
        store = open_store(endpoints, tls=tls)
        try:
            return await act(store)
        except MaoError as error:
            return error
        finally:
            await store.close()

    return asyncio.run(run())


async def create(key: str, store: Store) -> object:
    return await store.create(key, b"{}")


def round_of(shared: SharedPipeline, tick: str, phase: str) -> dict[str, Any]:
    """Wait until a tick's round is in this phase, and return the round."""
    first = shared.lab.nodes[0]

    def found() -> dict[str, Any] | None:
        return next(
            (r for r in shared.rounds(first).values() if r["tick"] == tick and r["phase"] == phase), None
        )

    result: dict[str, Any] = until(found, f"the round of {tick} is {phase}")
    return result


@pytest.fixture
def tick(shared: SharedPipeline) -> str:
    """Return a past tick that is later than all ticks run before."""
    ran = [run["scheduled_for"] for run in shared.runs(shared.lab.nodes[0])]
    last = max(map(datetime.fromisoformat, ran), default=datetime.now(UTC) - timedelta(hours=1))
    return format_time((last + timedelta(minutes=1)).replace(microsecond=0))


def finish(node: SiteNode, run: str) -> None:
    assert node.wait_run(run)["phase"] == "succeeded"


def test_liar_branch_rewritten_after_round_opened(shared: SharedPipeline, tick: str) -> None:
    *honest, liar = shared.lab.nodes
    before = git(shared.remote, "rev-parse", liar.name)
    finish(liar, shared.run_tick(liar, tick))
    round_of(shared, tick, "open")

    git(shared.remote, "update-ref", f"refs/heads/{liar.name}", before)
    for node in honest:
        finish(node, shared.run_tick(node, tick))

    found = round_of(shared, tick, "decided")
    assert liar.name in found["flagged"], found
    assert shared.file(str(found["commit"])) == shared.file(str(found["commits"]["alpha"]))
    liar.maoctl("dataset", "resolve", shared.dataset, "--take-theirs", check=False)


def test_liar_wrong_tree_attested(shared: SharedPipeline, tampered: Tampered, tick: str) -> None:
    """Let the liar attest a closed round before any other node."""
    first, *_, liar = shared.lab.nodes
    tampered.make_liar(liar.name)
    tampered.hold_honest()
    runs = [(node, shared.run_tick(node, tick)) for node in shared.lab.nodes]
    for node, run in runs:
        finish(node, run)
    closed = round_of(shared, tick, "closed")
    own = partial(attested, liar, shared, str(closed["id"]))
    lie = until(own, "the liar attests")
    assert lie.commit == closed["commits"][liar.name]
    assert round_of(shared, tick, "closed")["commit"] is None
    tampered.release()

    found = round_of(shared, tick, "decided")
    assert found["commit"] != lie.commit
    assert found["tree"] != lie.tree
    assert liar.name not in found["attested"]
    assert own() == lie
    until(lambda: liar.name in round_of(shared, tick, "decided")["flagged"], "the liar is named")
    until(lambda: named_by_alarm(first, str(found["id"]), liar.name), "an alarm names the liar")
    assert git(shared.remote, "rev-parse", "ground-truth").strip() == found["commit"]
    assert shared.file("ground-truth") == shared.file(str(found["commits"][first.name]))


def attested(node: SiteNode, shared: SharedPipeline, round_id: str) -> Attestation | None:
    """Return a node's attestation of the round, from the node's own prefix."""
    key = keys.attestation(node.name, shared.dataset, round_id)
    entry = acting_as(node.data_dir / "federation", node, lambda store: store.get(key))
    return Attestation.model_validate_json(entry.value) if isinstance(entry, Entry) else None


def named_by_alarm(node: SiteNode, round_id: str, liar: str) -> bool:
    alarms = node.http.get("/alarms").json()["items"]
    return any(alarm["id"] == f"{round_id}.{liar}" and "it computed" in alarm["detail"] for alarm in alarms)


def test_liar_write_outside_of_its_prefix_is_refused(shared: SharedPipeline) -> None:
    first, _, liar = shared.lab.nodes
    for key in (
        keys.announcement(first.name, shared.dataset, "x"),
        keys.member(first.name),
        keys.identity(liar.name),
        keys.core(liar.name),
        keys.authority(),
    ):
        refused = acting_as(liar.data_dir / "federation", liar, partial(create, key))
        assert isinstance(refused, Forbidden), key
        assert liar.name in refused.detail
        assert key in refused.detail
    hidden = acting_as(liar.data_dir / "federation", liar, lambda store: store.get(keys.authority()))
    assert isinstance(hidden, Forbidden)


def test_liar_removed_node_is_out_at_once_and_for_good(shared: SharedPipeline, tmp_path: Path) -> None:
    first, _, liar = shared.lab.nodes
    stolen = tmp_path / "stolen"
    shutil.copytree(liar.data_dir / "federation", stolen)
    assert not isinstance(acting_as(stolen, first, lambda store: store.get(keys.federation())), MaoError)

    first.maoctl("federation", "remove", liar.name, "--yes")

    refused = acting_as(stolen, first, lambda store: store.get(keys.federation()))
    assert isinstance(refused, Unauthorized)
    assert liar.name in refused.detail
    assert liar.name not in first.ask("dataset", "show", shared.dataset)["nodes"]
    first.maoctl("federation", "invite", liar.name)
    assert isinstance(acting_as(stolen, first, lambda store: store.get(keys.federation())), Unauthorized)
