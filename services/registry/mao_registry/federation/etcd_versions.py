"""Checks that the federation's etcd enforces access rights to keys, which a federation relies on.

An unsafe version is refused when a federation is created or joined, and when a node is promoted. A running
federation continues with the condition `etcd-version`: no node stops collecting because of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from mao_shared.clients.etcd_http import ask_version
from mao_shared.conditions import Conditions
from mao_shared.errors import Conflict
from mao_shared.etcd_version import NEEDED, judge, parse, worst
from mao_shared.models import CoreMember, Member
from mao_shared.store import TlsFiles

from .context import FederationContext

CONDITION = "etcd-version"
LABEL = "mao/etcd"  # label of a node: the version of the etcd that it would run as a core node
OVERRIDE = "--allow-unsafe-etcd-that-ignores-key-rights"
UNSAFE = (
    "lets every member and every invited node read and write all keys, the authority's private key too"
    " (CVE-2026-33343)"
)
WEAK = (
    "lets anyone who may read one key watch all keys after it (CVE-2026-73499; no secrets are stored there)"
)
INSTALL = "'scripts/machine.sh etcd' and 'make node' (compose: 'make up') install a safe one"
UPGRADE = (
    f"Run etcd {NEEDED} when your source has it: on PATH, or by MAO_ETCD (compose has it); it is not urgent"
)


class EtcdVersions:
    """The known versions of etcd's members, and the condition `etcd-version`."""

    def __init__(self, context: FederationContext, conditions: Conditions) -> None:
        self._context = context
        self._conditions = conditions
        self._known: dict[str, str] = {}  # node → last known version of its member

    def labels(self) -> dict[str, str]:
        """Return the label that `check_candidate` reads; empty if this node cannot become a core node."""
        own = self._context.files.etcd_version()
        return {LABEL: own} if self._context.address is not None and own else {}

    def check_own(self, *, allow_unsafe: bool) -> None:
        """Raise Conflict (`etcd-unsafe`) if the etcd that this node would run is known to be unsafe."""
        own = self._context.files.etcd_version()
        if own is not None:
            subject = f"The etcd of this node is {version_text(own)}"
            check_versions(subject, [own], f"{INSTALL}. Then repeat the command", allow_unsafe=allow_unsafe)

    def check_candidate(self, member: Member, *, allow_unsafe: bool) -> None:
        """Raise Conflict (`etcd-unsafe`) if the member's etcd is not known to be safe for a core node."""
        own = member.labels.get(LABEL, "")
        version = f"is {version_text(own)}" if own else "is unknown (does it run an older MAO?)"
        check_versions(
            f"The etcd that {member.name} would run {version}",
            [own],
            f"On {member.name}: {INSTALL}. Then repeat the command",
            allow_unsafe=allow_unsafe,
        )

    async def check_members(
        self, cores: Iterable[CoreMember], *, tls: TlsFiles | None = None, allow_unsafe: bool
    ) -> None:
        """Raise Conflict (`etcd-unsafe`) if the etcd of a core node is unsafe, or if none answers."""
        versions = await self._query_versions(cores, tls or self._context.files.tls())
        self._known.update(versions)
        subject = f"The federation's etcd is {nodes_by_version(versions)}"
        check_versions(
            subject if versions else "The federation's etcd does not report its version",
            versions.values() or [""],
            f"On its core nodes, one after the other: {INSTALL}. Then repeat the command",
            allow_unsafe=allow_unsafe,
        )

    async def update_condition(self, cores: Mapping[str, CoreMember]) -> None:
        """Query the federation's members and report or clear the condition."""
        versions = await self._query_versions(cores.values(), self._context.files.tls())
        self._known = {node: version for node, version in (self._known | versions).items() if node in cores}
        rating = self._rating()
        if rating == "good":
            self._conditions.clear(CONDITION)
            return
        etcd = f"The federation's etcd is {nodes_by_version(self._known)}"
        if rating == "unsafe":
            detail = f"ACCESS RIGHTS ARE NOT ENFORCED. {etcd}: {UNSAFE}."
            next_step = f"On each core node, one after the other: {INSTALL}."
        else:
            detail, next_step = f"{etcd}: {WEAK}.", f"{UPGRADE}."
        self._conditions.report(CONDITION, detail=detail, next_step=next_step)

    def update_condition_alone(self) -> None:
        """Report or clear the condition of a node that is in no federation."""
        self._known = {}
        own = self._context.files.etcd_version()
        if own is None or judge(own) != "unsafe":
            self._conditions.clear(CONDITION)
            return
        self._conditions.report(
            CONDITION,
            detail=f"This node's etcd is {version_text(own)}: enough for a node in no federation, but no"
            " federation can be created on it.",
            next_step=f"{INSTALL}.",
        )

    def warnings(self) -> list[str]:
        """Return warnings to show after creating, joining or enlarging the federation."""
        rating = self._rating()
        if rating == "good":
            return []
        effect, step = (UNSAFE, INSTALL) if rating == "unsafe" else (WEAK, UPGRADE)
        return [f"The federation's etcd is {nodes_by_version(self._known)}: {effect}. {step}."]

    def _rating(self) -> str:
        lowest = worst(self._known.values())
        return "good" if lowest is None else judge(lowest)

    async def _query_versions(self, cores: Iterable[CoreMember], tls: TlsFiles) -> dict[str, str]:
        """Query all members concurrently; return node → version of those that answer."""
        cores = list(cores)
        versions = await asyncio.gather(*(ask_version(core.client, tls) for core in cores))
        return {
            core.node: version for core, version in zip(cores, versions, strict=True) if version is not None
        }


def check_versions(subject: str, versions: Iterable[str], step: str, *, allow_unsafe: bool) -> None:
    """Raise Conflict (`etcd-unsafe`) if the worst of the versions is unsafe. Pure."""
    lowest = worst(versions)
    if allow_unsafe or judge(lowest) != "unsafe":
        return
    which = "which" if parse(lowest) else "and an unknown version counts as one that"
    raise Conflict(
        f"{subject}, {which} {UNSAFE}.", code="etcd-unsafe", next=f"{step}. To do it anyway: {OVERRIDE}."
    )


def version_text(version: str) -> str:
    return version or "of unknown version"


def nodes_by_version(versions: Mapping[str, str]) -> str:
    """Format versions as `3.4.23 (on node-1), 3.5.30 (on node-2, node-3)`."""
    nodes: dict[str, list[str]] = {}
    for node, version in sorted(versions.items()):
        nodes.setdefault(version, []).append(node)
    return ", ".join(f"{version_text(version)} (on {', '.join(nodes[version])})" for version in sorted(nodes))
