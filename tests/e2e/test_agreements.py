"""Runs written directly into a node's etcd are refused unless the operator agreed to their steps."""

from __future__ import annotations

import asyncio
import shutil
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from mao_node.processes import node_processes
from mao_node.settings import NodeSettings
from mao_shared import keys
from mao_shared.clock import SystemClock
from mao_shared.models import Enrolment, Privileges, Run, StepRun
from mao_shared.models.run import manual_run_id
from mao_shared.states import RunPhase
from mao_shared.store import Records, Store, open_store
from tests.support import main_job
from tests.support.docker import Engine
from tests.support.git import bare_repository
from tests.support.main_job import Names
from tests.support.node import NativeNode, native_node

pytestmark = [pytest.mark.docker, pytest.mark.etcd]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NativeNode]:
    """Run a separate node, since one test deletes its agreements."""
    with native_node(tmp_path_factory.mktemp("agreeing")) as node:
        yield node


@pytest.fixture
def names(node: NativeNode, tool_image: str, tmp_path: Path) -> Names:
    """Register a pipeline and run it once."""
    tag = uuid.uuid4().hex[:8]
    made = Names(f"tool-{tag}", f"data-{tag}")
    main_job.register(node, made, tool_image, str(bare_repository(tmp_path / "remote.git")))
    assert main_job.run_once(node, made)["phase"] == "succeeded"
    return made


@asynccontextmanager
async def etcd_of(node: NativeNode) -> AsyncIterator[Store]:
    """Open the node's store in the way its services do."""
    settings = NodeSettings(node=node.name, data_dir=node.data_dir, gateway_port=node.port)
    [registry] = [process for process in node_processes(settings, node.env) if process.name == "registry"]
    store = open_store(registry.env["MAO_ETCD_ENDPOINTS"])
    try:
        yield store
    finally:
        await store.close()


def forge_run(node: NativeNode, pipeline: str, change: Callable[[Run], Run]) -> str:
    """Write a queued run of the enrolled pipeline, altered by `change`, into etcd, and return its id."""

    async def write() -> str:
        async with etcd_of(node) as store:
            stored = await Records(store, keys.enrolments_prefix(node.name), Enrolment).get(pipeline)
            assert stored is not None
            now = SystemClock().now()
            run = Run(
                id=manual_run_id(pipeline, now),
                pipeline=pipeline,
                node=node.name,
                trigger="manual",
                created_at=now,
                overlap="queue",
                steps=[StepRun(spec=step) for step in stored.record.steps],
            )
            run = change(run)
            assert await Records(store, keys.runs_prefix(node.name), Run).create(run.id, run)
            return run.id

    return asyncio.run(write())


def forge_enrolment(node: NativeNode, pipeline: str, **changes: Any) -> None:
    async def write() -> None:
        async with etcd_of(node) as store:
            records = Records(store, keys.enrolments_prefix(node.name), Enrolment)
            stored = await records.get(pipeline)
            assert stored is not None
            step = stored.record.steps[0].model_copy(update=changes)
            forged = stored.record.model_copy(update={"steps": [step]})
            assert await records.replace(pipeline, forged, stored.revision)

    asyncio.run(write())


def _step(**changes: Any) -> Callable[[Run], Run]:
    def change(run: Run) -> Run:
        spec = run.steps[0].spec.model_copy(update=changes)
        return run.with_step(0, run.steps[0].model_copy(update={"spec": spec}))

    return change


FORGED = {
    "root": _step(privileges=Privileges(user="root"), command=["sh", "-c", "id"]),
    "host-network": _step(network="host"),
    "capability": _step(privileges=Privileges(capabilities=["SYS_ADMIN"])),
    "command": _step(command=["sh", "-c", "echo forged > /usr/src/app/data/forged"]),
    "variable": _step(env={"PATH": "/usr/src/app/data"}),
}


@pytest.mark.parametrize("change", FORGED.values(), ids=FORGED)
def test_agreement_run_written_into_etcd_is_not_run(
    node: NativeNode, names: Names, engine: Engine, change: Callable[[Run], Run]
) -> None:
    run_id = forge_run(node, names.tool, change)
    run = node.wait_run(run_id)
    assert (run["phase"], run["error"]["code"]) == ("failed", "not-agreed"), run
    assert f"maoctl pipeline approve {names.tool}" in run["error"]["next"]
    assert "running" not in run["steps"][0]["times"]
    assert run["steps"][0].get("container_id") is None
    assert not engine.containers(mao_run=run_id)
    assert main_job.run_once(node, names)["phase"] == "succeeded", "the pipeline itself goes on"


def test_agreement_step_copied_under_another_pipelines_name_is_not_run(
    node: NativeNode, names: Names, tool_image: str, tmp_path: Path
) -> None:
    other = Names(f"{names.tool}-b", f"{names.dataset}-b")
    main_job.register(node, other, tool_image, str(bare_repository(tmp_path / "other.git")))
    run_id = forge_run(node, names.tool, lambda run: run.model_copy(update={"pipeline": other.tool}))
    assert node.wait_run(run_id)["error"]["code"] == "not-agreed"


def test_agreement_run_that_is_as_agreed_runs_whoever_wrote_it(node: NativeNode, names: Names) -> None:
    """Rule out that the refusals above have another reason."""
    assert node.wait_run(forge_run(node, names.tool, lambda run: run))["phase"] == RunPhase.SUCCEEDED


def test_agreement_enrolment_forged_in_etcd_runs_only_after_approval(node: NativeNode, names: Names) -> None:
    forge_enrolment(node, names.tool, privileges=Privileges(user="root"), command=["sh", "-c", "id"])
    run = main_job.run_once(node, names)
    assert (run["phase"], run["error"]["code"]) == ("failed", "not-agreed")
    node.maoctl("pipeline", "approve", names.tool, "--yes")
    run = main_job.run_once(node, names)
    assert run["phase"] == "succeeded", run
    assert run["steps"][0]["spec"]["privileges"].get("user") is None


def test_agreement_covers_retries_reproductions_and_backfills(node: NativeNode, names: Names) -> None:
    first = main_job.run_once(node, names)
    node.maoctl("tool", "update", names.tool, "--command", "sh -c 'echo new > /usr/src/app/data/new'")
    node.maoctl("pipeline", "approve", names.tool, "--yes")
    assert main_job.run_once(node, names)["steps"][0]["spec"]["command"]
    for verb in ("retry", "reproduce"):
        made = node.http.post(f"/runs/{first['id']}/{verb}", json={} if verb == "reproduce" else None)
        assert made.status_code == 201, made.text
        run = node.wait_run(made.json()["id"])
        assert run["phase"] == "succeeded", run
    job = main_job.schedule(node, names, "0 4 * * *")
    node.maoctl("job", "backfill", job["id"], "--since", "2d")
    runs = [r for r in node.http.get("/runs").json()["items"] if r.get("schedule") == job["id"]]
    assert runs
    assert {node.wait_run(r["id"])["phase"] for r in runs} == {"succeeded"}
    node.http.delete(f"/jobs/{job['id']}").raise_for_status()


def test_agreement_withdrawal_refuses_runs_and_upgrade_keeps_agreements(
    node: NativeNode, names: Names
) -> None:
    first = main_job.run_once(node, names)
    node.maoctl("pipeline", "withdraw", names.tool, "--yes")
    made = node.http.post(f"/runs/{first['id']}/reproduce", json={})
    assert (made.status_code, made.json()["code"]) == (409, "not-enrolled")
    node.maoctl("pipeline", "enrol", names.tool)
    made = node.http.post(f"/runs/{first['id']}/reproduce", json={})
    assert node.wait_run(made.json()["id"])["phase"] == "succeeded"
    node.stop()
    shutil.rmtree(node.data_dir / "agreements")  # as the previous version left it
    node.restart()
    assert main_job.run_once(node, names)["phase"] == "succeeded"
    forge_enrolment(node, names.tool, command=["id"])
    node.stop()
    node.restart()
    assert main_job.run_once(node, names)["error"]["code"] == "not-agreed", "taken over once"
