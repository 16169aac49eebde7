"""Whether the versions of the federation's etcd enforce the key rights a federation relies on.

Asked before a federation is created or joined and before a node is promoted, which is refused where it does
not. One that is there already goes on, with the condition `etcd-version`: nobody stops collecting for it.
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
LABEL = "mao/etcd"  # of a node's presence: the version of the etcd that it would run as a core node
OVERRIDE = "--allow-unsafe-etcd-that-ignores-key-rights"
HOLE = (
    "lets every member and every invited node read and write all keys, the authority's private key too"
    " (CVE-2026-33343)"
)
LEAK = "lets who may read one key watch all keys behind it (CVE-2026-73499; here nothing secret lies there)"
BRING = "'scripts/machine.sh etcd' and 'make node' (compose: 'make up') bring one that keeps them"
WISH = (
    f"Run etcd {NEEDED} when your source has it: on PATH, or by MAO_ETCD (compose has it); there is no hurry"
)


class EtcdVersions:
    """What is known of the versions of etcd's members, and what follows from it for people."""

    def __init__(self, site: FederationContext, conditions: Conditions) -> None:
        self._site = site
        self._conditions = conditions
        self._known: dict[str, str] = {}  # node → its member's version, also while that does not answer

    def labels(self) -> dict[str, str]:
        """By which this node's presence says what `check_candidate` asks; none where it is never a core."""
        own = self._site.folder.etcd_version()
        return {LABEL: own} if self._site.place is not None and own else {}

    def check_own(self, *, allow_unsafe: bool) -> None:
        """Raises Conflict (`etcd-unsafe`) by the etcd that this node would run, where that is known yet."""
        own = self._site.folder.etcd_version()
        if own is not None:
            check_versions(
                f"The etcd of this node is {named(own)}",
                [own],
                f"{BRING}. Then repeat the command",
                allow_unsafe=allow_unsafe,
            )

    def check_candidate(self, member: Member, *, allow_unsafe: bool) -> None:
        """Raises Conflict (`etcd-unsafe`) for a node that may not become a core node."""
        own = member.labels.get(LABEL, "")
        told = f"is {named(own)}" if own else "is not known (does an older MAO run there?)"
        what = f"The etcd that {member.name} would run {told}"
        mend = f"On {member.name}: {BRING}. Then repeat the command"
        check_versions(what, [own], mend, allow_unsafe=allow_unsafe)

    async def check_members(
        self, cores: Iterable[CoreMember], *, tls: TlsFiles | None = None, allow_unsafe: bool
    ) -> None:
        """Raises Conflict (`etcd-unsafe`) by the worst of those members that answer, or when none does."""
        found = await self._ask(cores, tls or self._site.folder.tls())
        self._known.update(found)
        what = (
            f"The federation's etcd is {listed(found)}" if found else "The federation's etcd tells no version"
        )
        mend = f"On its core nodes, one after the other: {BRING}. Then repeat the command"
        check_versions(what, found.values() or [""], mend, allow_unsafe=allow_unsafe)

    async def look(self, cores: Mapping[str, CoreMember]) -> None:
        """Asks the members of the federation that this node is in, and reports or clears the condition."""
        found = await self._ask(cores.values(), self._site.folder.tls())
        self._known = {node: known for node, known in (self._known | found).items() if node in cores}
        count = worst(self._known.values())
        standing = "good" if count is None else judge(count)
        if standing == "good":
            self._conditions.clear(CONDITION)
            return
        what = f"The federation's etcd is {listed(self._known)}: {HOLE if standing == 'unsafe' else LEAK}."
        self._conditions.report(
            CONDITION,
            detail=f"ITS RIGHTS DO NOT HOLD. {what}" if standing == "unsafe" else what,
            next_step=f"On each core node, one after the other: {BRING}."
            if standing == "unsafe"
            else f"{WISH}.",
        )

    def look_alone(self) -> None:
        """A node that stands alone needs no rights of etcd; it is told what it could not do."""
        self._known = {}
        own = self._site.folder.etcd_version()
        if own is None or judge(own) != "unsafe":
            self._conditions.clear(CONDITION)
            return
        self._conditions.report(
            CONDITION,
            detail=f"This node's etcd is {named(own)}: good enough for a node that stands alone, but no"
            " federation can be created on it.",
            next_step=f"{BRING}.",
        )

    def warnings(self) -> list[str]:
        """What a person is to be told who has just created, joined or enlarged the federation."""
        count = worst(self._known.values())
        if count is None or judge(count) == "good":
            return []
        what, mend = (HOLE, BRING) if judge(count) == "unsafe" else (LEAK, WISH)
        return [f"The federation's etcd is {listed(self._known)}: {what}. {mend}."]

    async def _ask(self, cores: Iterable[CoreMember], tls: TlsFiles) -> dict[str, str]:
        """Node → version, of those that answer; all are asked at once."""
        asked = list(cores)
        told = await asyncio.gather(*(ask_version(core.client, tls) for core in asked))
        return {core.node: each for core, each in zip(asked, told, strict=True) if each is not None}


def check_versions(what: str, versions: Iterable[str], mend: str, *, allow_unsafe: bool) -> None:
    """Pure. Raises Conflict (`etcd-unsafe`) by the worst of the versions."""
    count = worst(versions)
    if allow_unsafe or judge(count) != "unsafe":
        return
    which = "which" if parse(count) else "and what is not known counts as one that"
    raise Conflict(
        f"{what}, {which} {HOLE}.", code="etcd-unsafe", next=f"{mend}. To do it all the same: {OVERRIDE}."
    )


def named(version: str) -> str:
    return version or "of no version that it tells"


def listed(versions: Mapping[str, str]) -> str:
    """`3.4.23 (on node-1), 3.5.30 (on node-2, node-3)`."""
    nodes = {each: sorted(node for node in versions if versions[node] == each) for each in versions.values()}
    return ", ".join(f"{named(each)} (on {', '.join(on)})" for each, on in sorted(nodes.items()))
