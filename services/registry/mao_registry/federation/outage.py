"""Why a command of the federation failed, in words that lead on: struck off, no majority, or just now."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from mao_shared import age
from mao_shared.errors import FederationUnavailable, MaoError, StoreUnavailable, UserUnknown
from mao_shared.federation.home import removed
from mao_shared.models import CoreMember, Link
from mao_shared.store import Store

from .context import Ledger, Site
from .etcd_members import quorum

AWAY = FederationUnavailable.default_code  # also of what the federation's etcd itself does not answer


@asynccontextmanager
async def explained(site: Site, federation: Store) -> AsyncIterator[None]:
    """Puts what etcd's silence or refusal means in place of it; `federation` may answer from copies."""
    try:
        yield
    except UserUnknown as error:
        if (stored := await site.link()) is None:
            raise
        raise removed(stored.record.federation) from error
    except StoreUnavailable as error:
        stored = await site.link()
        if error.code != AWAY or stored is None:
            raise
        raise await _explain(site, federation, stored.record, error) from error


async def _explain(site: Site, federation: Store, link: Link, error: MaoError) -> MaoError:
    """`error` itself where no core nodes are known."""
    try:
        with age.noting():  # the refusal does not rest on how old this is
            cores = await Ledger(federation).cores.by_name()
        voters = [core for core in cores.values() if not core.learner]
        async with site.admin(",".join(link.endpoints)) as admin:
            answers = await asyncio.gather(*(admin.health(each.client) for each in voters))
    except MaoError:
        return error
    if not voters:
        return error
    silent = [core for core, answer in zip(voters, answers, strict=True) if not answer.reachable]
    return describe(link.federation, voters, silent, error.detail)


def describe(
    federation: str, voters: Sequence[CoreMember], silent: Sequence[CoreMember], detail: str
) -> FederationUnavailable:
    """Pure. `silent`: those of the voters that do not answer."""
    who = _names(silent)
    verb = "does" if len(silent) == 1 else "do"
    if len(voters) - len(silent) < quorum(len(voters)):
        return FederationUnavailable(
            f"The federation {federation!r} has no majority: {who} {verb} not answer.",
            code="no-majority",
            next=f"Start {'it' if len(silent) == 1 else 'them'}; if gone for good, see 'Half of the core or"
            " more is gone for good' in docs/federation.md (maoctl federation leave --force, found it anew).",
        )
    return FederationUnavailable(
        f"The federation {federation!r} did not answer: {detail}"
        + (f" The core node{'s' if len(silent) > 1 else ''} {who} {verb} not answer." if silent else ""),
        next="Repeat the command in a few seconds; 'maoctl federation list' shows which core nodes answer.",
    )


def _names(cores: Sequence[CoreMember]) -> str:
    names = sorted(each.node for each in cores)
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
