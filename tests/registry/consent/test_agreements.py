"""Agreements are on disk before an enrolment, and writes to etcd alone give no consent."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from mao_registry.registry import Registry
from mao_shared import keys
from mao_shared.agreements import Agreement, AgreementFiles, refusal_reason
from mao_shared.clock import SystemClock
from mao_shared.models import Enrolment, Privileges, ResolvedImage, Run, StepRun, Tool, Trust
from mao_shared.store import Check, Store, Write
from mao_shared.store.memory import MemoryStore
from mao_shared.store.records import dump
from tests.registry.conftest import NODE, running
from tests.registry.doubles import DyingStore, Killed, WillingServices, away_store
from tests.registry.seed import INIT, TOOL, register
from tests.support.waiting import eventually

KEY = keys.enrolment(NODE, "crawler")
ROOT = {"privileges": {"user": "root"}}


class Site:
    """A node's store and its folder of agreements, which outlive its registry."""

    def __init__(self, root: Path) -> None:
        self.store = MemoryStore()
        self.folder = root / "agreements"
        self.files = AgreementFiles(self.folder)
        self.services = WillingServices()

    @asynccontextmanager
    async def registry(self, store: Any = None) -> AsyncIterator[tuple[httpx.AsyncClient, Registry]]:
        used = cast(Store, store or self.store)
        async with running(used, self.services, agreements_dir=self.folder) as parts:
            yield parts

    async def enrolment(self) -> Enrolment | None:
        entry = await self.store.get(KEY)
        return None if entry is None else Enrolment.model_validate_json(entry.value)

    async def forge(self, **step: Any) -> None:
        """Write an enrolment directly to etcd."""
        entry = await self.store.get(KEY)
        assert entry is not None
        enrolment = Enrolment.model_validate_json(entry.value)
        changed = enrolment.model_copy(update={"steps": [enrolment.steps[0].model_copy(update=step)]})
        assert await self.store.replace(KEY, dump(changed), entry.revision)

    def agreement(self) -> Agreement:
        found = self.files.read("crawler")
        assert found is not None
        return found

    async def runs(self) -> bool:
        """Return whether the runner would run what is enrolled."""
        enrolment, found = await self.enrolment(), self.files.read("crawler")
        return enrolment is not None and found is not None and found.covers(enrolment)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    made = Site(tmp_path)
    yield made
    await made.store.close()


async def approve(client: httpx.AsyncClient, **more: Any) -> httpx.Response:
    diff = (await client.get("/pipeline/crawler/diff")).json()
    return await client.post("/pipeline/crawler/approve", json={"definition": diff["definition"], **more})


async def test_agreement_written_before_enrolment(site: Site) -> None:
    seen: list[bool] = []

    class Watched:
        def __getattr__(self, name: str) -> Any:
            return getattr(site.store, name)

        async def transact(self, checks: list[Check], writes: list[Write]) -> int | None:
            if any(write.key == KEY for write in writes):
                seen.append(site.files.path("crawler").exists())
            return await site.store.transact(checks, writes)

    async with site.registry(Watched()) as (client, _):
        await register(client)
        assert (await client.post("/pipeline/init", json=INIT)).status_code == 201
        assert (await client.put("/enrolments/crawler", json={"pull": "always"})).status_code == 200
    assert seen == [True, True]
    assert await site.runs()


@pytest.mark.parametrize("lives", [0, 1])
async def test_init_after_crash_completes(site: Site, lives: int) -> None:
    async with site.registry() as (client, _):
        await register(client, **ROOT)
    body = {**INIT, "agree": ["user root"]}
    with pytest.raises(Killed):
        async with site.registry(DyingStore(site.store, lives)) as (client, _):
            await client.post("/pipeline/init", json=body)
    assert await site.enrolment() is None
    async with site.registry() as (client, _):
        answer = await client.post("/pipeline/init", json=INIT if lives else body)
        assert answer.status_code == 201, answer.text
    assert await site.runs()


async def test_renew_after_crash_completes(site: Site) -> None:
    async with site.registry() as (client, registry):
        await register(client)
        assert (await client.post("/pipeline/init", json=INIT)).status_code == 201
        await registry.tools.update("crawler", Tool(**{**TOOL, "command": ["new"], **ROOT}), None)
    with pytest.raises(Killed):
        async with site.registry(DyingStore(site.store, 1)) as (client, _):
            await client.put("/enrolments/crawler", json={"agree": ["user root"]})
    before = await site.enrolment()
    assert before is not None
    assert before.steps[0].command is None
    assert await site.runs(), "what is enrolled goes on"
    async with site.registry() as (client, _):
        assert (await client.put("/enrolments/crawler", json={})).status_code == 200, (
            "it is agreed to already"
        )
    assert await site.runs()
    assert {step.asked[0] for step in site.agreement().steps if step.current} == {"user root"}


async def test_withdraw_after_crash_removes_agreement(site: Site) -> None:
    async with site.registry() as (client, registry):
        await register(client)
        for _ in range(2):
            assert (await client.post("/pipeline/init", json=INIT)).status_code == 201
            agreements, call = registry.agreements, registry.agreements.withdraw

            async def killed(pipeline: str) -> bool:
                raise Killed

            agreements.withdraw = killed  # type: ignore[method-assign]
            with pytest.raises(Killed):
                await client.delete("/enrolments/crawler")
            agreements.withdraw = call  # type: ignore[method-assign]
            assert await site.enrolment() is None
            assert not site.agreement().withdrawn
            assert (await client.delete("/enrolments/crawler")).status_code == 204
            assert site.agreement().withdrawn
            assert (await client.delete("/enrolments/crawler")).status_code == 404


FORGED = [
    {"privileges": Privileges(user="root")},
    {"image": ResolvedImage(name="busybox:1.36", pinned="evil@sha256:" + "e" * 64, platform="linux/amd64")},
    {"command": ["sh", "-c", "id"]},
    {"network": "host"},
]


@pytest.mark.parametrize("forged", FORGED)
async def test_forged_enrolment_shown_and_replaced_by_approval(site: Site, forged: dict[str, Any]) -> None:
    async with site.registry() as (client, _):
        await register(client)
        assert (await client.post("/pipeline/init", json=INIT)).status_code == 201
        before = await site.enrolment()
        assert before is not None
        await site.forge(**forged)
        assert not await site.runs()
        [state] = (await client.get("/pipeline")).json()["items"]
        assert (state["outdated"], "was not agreed to" in state["pending"][0]) == (True, True)
        diff = (await client.get("/pipeline/crawler/diff")).json()
        assert diff["diff"].startswith("--- /dev/null"), "all of it is to be seen, not what the forger left"
        assert (await approve(client)).status_code == 200
        after = await site.enrolment()
        assert after is not None
        assert after.steps == before.steps, "nothing of what was forged is taken over"
        assert await site.runs()
        assert (await client.get("/pipeline")).json()["items"][0]["pending"] == []


async def test_forged_enrolment_grants_nothing(site: Site) -> None:
    """A renewal keeps what was granted before: granted by the operator, not by what lies in etcd."""
    async with site.registry() as (client, registry):
        await register(client)
        assert (await client.post("/pipeline/init", json=INIT)).status_code == 201
        await registry.tools.update("crawler", Tool(**{**TOOL, **ROOT}), None)
        await site.forge(privileges=Privileges(user="root"))
        for answer in (await client.put("/enrolments/crawler", json={}), await approve(client)):
            assert (answer.status_code, answer.json()["code"]) == (422, "agreement-needed"), answer.text
        assert not await site.runs()
        assert (await approve(client, agree=["user root"])).status_code == 200
        assert await site.runs()


async def test_forged_enrolment_is_not_auto_approved(site: Site) -> None:
    async with site.registry() as (client, registry):
        await register(client)
        assert (await client.post("/pipeline/init", json=INIT)).status_code == 201
        await registry.trust.trust(NODE)  # whose endorsement of all that is registered is there
        await site.forge(command=["sh", "-c", "id"])
        await registry.trust.reconcile()
        assert not await site.runs()


async def test_forged_trust_approves_nothing(site: Site) -> None:
    async with site.registry() as (client, registry):
        await register(client)
        assert (await client.post("/pipeline/init", json=INIT)).status_code == 201
        before = await site.enrolment()
        await registry.tools.update("crawler", Tool(**{**TOOL, "image": "evil:1"}), None)  # endorsed by NODE
        trust = dump(Trust(node=NODE, since=SystemClock().now()))
        assert await site.store.create(keys.trusted_prefix(NODE) + NODE, trust)
        await registry.trust.reconcile()
        assert await site.enrolment() == before
        assert (await client.get("/trusted")).json()["items"] == []
        assert (await client.put(f"/trusted/{NODE}")).status_code == 200, "as the operator says now"
        await registry.trust.reconcile()
        assert (await site.enrolment()) != before
        assert await site.runs()
        assert (await client.delete(f"/trusted/{NODE}")).status_code == 204
        assert site.files.trusted() == set()
        assert (await client.delete(f"/trusted/{NODE}")).status_code == 404


async def test_migration_imports_enrolments_and_trust_once(site: Site) -> None:
    async with site.registry() as (client, registry):
        await register(client, **ROOT)
        assert (await client.post("/pipeline/init", json={**INIT, "agree": ["user root"]})).status_code == 201
        await registry.trust.trust("friend")
    for path in site.folder.iterdir():
        path.unlink()
    site.folder.rmdir()
    enrolment = await site.enrolment()
    assert enrolment is not None
    older = enrolment.steps[0].model_copy(update={"command": ["older"], "privileges": Privileges()})
    for number, spec in enumerate((older, enrolment.steps[0])):
        run = Run(
            id=f"r{number}",
            pipeline="crawler",
            node=NODE,
            trigger="manual",
            created_at=enrolment.enrolled_at,
            steps=[StepRun(spec=spec)],
        )
        assert await site.store.create(keys.run(NODE, run.id), dump(run))
    async with site.registry() as (client, _):
        await eventually(site.files.is_taken_over)
        assert await site.runs()
        assert site.files.trusted() == {"friend"}
        assert (await client.put("/enrolments/crawler", json={})).status_code == 200, (
            "root is granted as before"
        )
        assert refusal_reason(site.agreement(), NODE, "crawler", older) is None, (
            "to go on with, and to reproduce"
        )
    await site.forge(command=["id"])
    async with site.registry() as (client, registry):
        await registry.agreements.trusted()
        assert not await site.runs(), "what comes later is taken over no more"


async def test_migration_precedes_first_command(site: Site) -> None:
    async with site.registry() as (client, _):
        await register(client, **ROOT)
        assert (await client.post("/pipeline/init", json={**INIT, "agree": ["user root"]})).status_code == 201
    for path in site.folder.iterdir():
        path.unlink()
    async with site.registry() as (client, _):
        answer = await client.put("/enrolments/crawler", json={})
        assert answer.status_code == 200, answer.text
    assert await site.runs()


async def test_migration_waits_for_store(site: Site) -> None:
    async with site.registry(away_store()) as (client, registry):
        assert (await client.put("/enrolments/crawler", json={})).status_code == 503
        assert not site.files.is_taken_over()
        assert (await client.get("/trusted")).status_code == 503
        assert registry.agreements.files.directory == site.folder


@pytest.mark.parametrize("spoil", ["damage", "chmod", "remove"])
async def test_agreement_file_unusable_is_replaced_by_approval(site: Site, spoil: str) -> None:
    async with site.registry() as (client, _):
        await register(client)
        assert (await client.post("/pipeline/init", json=INIT)).status_code == 201
        path = site.files.path("crawler")
        if spoil == "damage":
            path.write_text("{")
        elif spoil == "chmod":
            path.chmod(0o666)
        else:
            path.unlink()
        assert (await client.get("/pipeline/crawler/diff")).json()["pending"]
        assert (await approve(client)).status_code == 200
        assert await site.runs()


async def test_agreement_directory_unwritable_refuses_enrolment(site: Site) -> None:
    async with site.registry() as (client, registry):
        await register(client)
        await registry.agreements.trusted()
        blocked = AgreementFiles(site.folder / ".taken-over" / "no-folder")
        registry.agreements.files = blocked
        answer = await client.post("/pipeline/init", json=INIT)
        assert (answer.status_code, answer.json()["code"]) == (500, "agreement-unusable"), answer.text
        assert answer.json()["next"]
        assert await site.enrolment() is None
        registry.agreements.files = site.files
        assert (await client.post("/pipeline/init", json=INIT)).status_code == 201
    assert await site.runs()


async def test_trust_file_unusable_trusts_nobody(site: Site) -> None:
    async with site.registry() as (client, registry):
        await registry.trust.trust("friend")
        (site.folder / ".trusted").write_text("{")
        assert (await client.get("/registry/nodes")).status_code == 200
        assert (await client.get("/trusted")).json()["items"] == []
        assert (await client.put("/trusted/friend")).status_code == 200
        assert [item["node"] for item in (await client.get("/trusted")).json()["items"]] == ["friend"]
