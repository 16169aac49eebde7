"""An etcd that ignores key rights is refused for a federation, unless overridden."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path

import pytest

from mao_registry.federation.context import FederationRecords
from mao_registry.federation.etcd_versions import (
    CONDITION,
    LABEL,
    EtcdVersions,
    check_versions,
    nodes_by_version,
)
from mao_shared.conditions import Conditions
from mao_shared.errors import Conflict
from mao_shared.etcd_version import OUTPUT_FILE
from mao_shared.models import CoreMember, Member
from mao_shared.models.node import Condition
from mao_shared.store import TlsFiles
from tests.support.etcd import unsafe_etcd, version_of

from .nodes import Node, join, running

pytestmark = pytest.mark.etcd


def condition(node: Node) -> Condition | None:
    return next((c for c in node.conditions.current() if c.name == CONDITION), None)


async def test_create_refuses_unsafe_etcd_unless_overridden(tmp_path: Path) -> None:
    program = unsafe_etcd()
    version = version_of(program)
    async with running(tmp_path, "a", "b", etcd=program) as (a, b):
        await a.lifecycle.controller.reconcile()
        alone = condition(a)
        assert alone is not None
        assert (alone.state, version in alone.detail) == ("degraded", True)
        with pytest.raises(Conflict, match="CVE-2026-33343") as refused:
            await a.lifecycle.create("lab")
        assert refused.value.code == "etcd-unsafe"
        assert "--allow-unsafe-etcd-that-ignores-key-rights" in str(refused.value.next)
        assert sorted(path.name for path in a.files.directory.iterdir()) == [OUTPUT_FILE]
        made = await a.lifecycle.create("lab", allow_unsafe=True)
        assert version in made.warnings[0]
        await a.until_switched()
        invitation = await a.lifecycle.invite("b", 3600)
        with pytest.raises(Conflict, match=f"{version} .on a.") as refused:
            await b.lifecycle.join(invitation.token)
        assert refused.value.code == "etcd-unsafe"
        assert b.federation.is_own
        joined = await b.lifecycle.join(invitation.token, allow_unsafe=True)
        assert version in joined.warnings[0]
        await a.until_joined("b")
        await b.until_switched()
        for node in (a, b):
            await node.until(partial(_says, node, "ACCESS RIGHTS ARE NOT ENFORCED"))
            await node.add_tool(f"tool-{node.name}")  # it goes on
        with pytest.raises(Conflict) as refused:
            await a.lifecycle.promote("b")
        assert refused.value.code == "etcd-unsafe"
        assert (await a.lifecycle.promote("b", allow_unsafe=True)).node == "b"


async def _says(node: Node, words: str) -> bool:
    await node.lifecycle.controller.reconcile()
    found = condition(node)
    return found is not None and words in found.detail


async def test_create_rolls_back_when_running_etcd_is_unsafe(tmp_path: Path) -> None:
    """Refused also if no version is known, as under compose while the other container starts."""
    program = unsafe_etcd()
    async with running(tmp_path, "a", etcd=program) as (a,):
        for told in ("etcd Version: 3.6.16\n", None):
            note = a.files.directory / OUTPUT_FILE
            note.unlink() if told is None else note.write_text(told)
            with pytest.raises(Conflict, match=version_of(program)) as refused:
                await a.lifecycle.create("lab")
            assert refused.value.code == "etcd-unsafe"
            left = {path.name for path in a.files.directory.iterdir()} - {OUTPUT_FILE}
            assert left == set()
            assert await a.context.find_link() is None


async def test_join_safe_etcd_and_version_labels(tmp_path: Path) -> None:
    version = version_of("etcd")
    async with running(tmp_path, "a", "b") as (a, b):
        assert condition(a) is None
        await a.lifecycle.create("lab")
        await join(a, b)
        await b.until_switched()
        present = await FederationRecords(a.federation).members.get("b")
        assert present is not None
        assert present.record.labels == {LABEL: version}
        await a.lifecycle.promote("b")
        await a.until(partial(_listed, a, f"{version} (on a, b)"))


async def _listed(node: Node, words: str) -> bool:
    """Return the condition `etcd-version`, if reported."""
    await node.lifecycle.controller.reconcile()
    found = condition(node)
    return found is None or (words in found.detail and "NOT ENFORCED" not in found.detail)


@pytest.mark.parametrize("told", ["etcd Version: 3.5.27\n", "etcd Version: 3.4.41\n", "nonsense", ""])
async def test_promote_refuses_unsafe_candidate(tmp_path: Path, told: str) -> None:
    async with running(tmp_path, "a", "b") as (a, b):
        (b.files.directory / OUTPUT_FILE).write_text(told)
        await a.lifecycle.create("lab")
        await join(a, b)
        with pytest.raises(Conflict, match="b would run") as refused:
            await a.lifecycle.promote("b")
        assert refused.value.code == "etcd-unsafe"
        identity = await a.identity("b")
        assert identity is not None
        assert identity.role == "client"


def core(node: str, client: str) -> CoreMember:
    return CoreMember(node=node, member_id="1", client=client, peer="127.0.0.1:1")


async def test_update_condition_by_worst_member(tmp_path: Path) -> None:
    told = {"a:1": "3.6.16", "b:1": "3.4.23", "c:1": "3.5.30"}
    node = Node("a", tmp_path)
    versions = VersionsTold(node, told)
    cores = {name: core(name, f"{name}:1") for name in "abc"}
    await versions.update_condition(cores)
    found = condition(node)
    assert found is not None
    assert "3.4.23 (on b), 3.5.30 (on c), 3.6.16 (on a)" in found.detail
    assert "CVE-2026-33343" in found.detail
    del told["b:1"]  # it does not answer: no reason to forget what it was
    await versions.update_condition(cores)
    assert "CVE-2026-33343" in str(condition(node))
    told["b:1"] = "3.5.33"
    await versions.update_condition(cores)
    assert "CVE-2026-73499" in str(condition(node))
    assert "CVE-2026-33343" not in str(condition(node))
    await versions.update_condition({name: cores[name] for name in "ab"})  # c was replaced
    assert condition(node) is None
    assert versions.warnings() == []
    told["a:1"] = ""
    await versions.update_condition(cores)
    assert "of unknown version (on a)" in str(condition(node))
    versions.update_condition_alone()
    assert condition(node) is None
    await node.federation.close()


class VersionsTold(EtcdVersions):
    """Members that report the given versions, by address; the others do not answer."""

    def __init__(self, node: Node, told: dict[str, str]) -> None:
        super().__init__(node.context, node.conditions)
        self._told = told

    async def _query_versions(self, cores: Iterable[CoreMember], tls: TlsFiles) -> dict[str, str]:
        return {core.node: self._told[core.client] for core in cores if core.client in self._told}


@pytest.mark.parametrize("versions", [["3.5.33", "3.4.41"], ["3.6.8"], [""], []])
def test_check_versions_refuses_by_worst(versions: list[str]) -> None:
    with pytest.raises(Conflict) as refused:
        check_versions("It is old", versions, "Mend it", allow_unsafe=False)
    assert str(refused.value.next).endswith("--allow-unsafe-etcd-that-ignores-key-rights.")
    check_versions("It is old", versions, "Mend it", allow_unsafe=True)


@pytest.mark.parametrize("versions", [["3.4.42"], ["3.5.28", "3.6.9"], ["3.7.0"], ["4.0.0"]])
def test_check_versions_allows_warning_only(versions: list[str]) -> None:
    check_versions("It is old", versions, "Mend it", allow_unsafe=False)


def test_check_candidate_of_older_version(tmp_path: Path) -> None:
    versions = EtcdVersions(Node("a", tmp_path).context, Conditions())
    member = Member(
        name="b", version="0.8", labels={"zone": "ch"}, started_at=Node("a", tmp_path).context.now
    )
    with pytest.raises(Conflict, match="older MAO"):
        versions.check_candidate(member, allow_unsafe=False)
    versions.check_candidate(member, allow_unsafe=True)


def test_listed_groups_by_version() -> None:
    assert (
        nodes_by_version({"c": "3.5.30", "a": "3.5.30", "b": "3.4.23"}) == "3.4.23 (on b), 3.5.30 (on a, c)"
    )
