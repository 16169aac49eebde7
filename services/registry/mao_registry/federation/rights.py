"""Who may command what: core nodes hold etcd's `root` role, the others are told where to ask."""

from __future__ import annotations

from mao_shared.errors import Forbidden
from mao_shared.models import Link
from mao_shared.store import Store

from .site import Ledger


async def check_core(store: Store, link: Link, command: str) -> None:
    """Raises Forbidden (`not-core`) that names the nodes where the command works."""
    cores = sorted(each.record.node for each in await Ledger(store).cores.all() if not each.record.learner)
    if link.node in cores:
        return
    raise Forbidden(
        f"Only core nodes may do this; in {link.federation!r} these are {', '.join(cores) or 'none now'}.",
        code="not-core",
        next=f"On one of them: {command}.",
    )
