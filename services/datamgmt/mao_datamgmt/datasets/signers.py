"""Who signs commits in this federation: every node's public keys, as git's list of allowed signers.

A key that was replaced stays listed, since what it signed stays signed.
"""

from __future__ import annotations

import asyncio
import re

from mao_shared.conditions import Conditions
from mao_shared.errors import MaoError
from mao_shared.federation import FederationStore
from mao_shared.models import Signer
from mao_shared.reconcile import Backoff, every
from mao_shared.store import Records

TRY_AGAIN = 10.0  # seconds
_PRINCIPAL = re.compile(r"[^\s,!*?\"#]+")


def allowed_line(email: str, node: str, public_key: str) -> str:
    """A line of an allowed-signers file. An e-mail with special characters would be a pattern there."""
    principal = email if _PRINCIPAL.fullmatch(email) else f"mao@{node}"
    return f'{principal} namespaces="git" {public_key}'


def with_line(signer: Signer | None, node: str, line: str) -> Signer | None:
    """Pure: the node's record with one more line; None when it has that line."""
    lines = [] if signer is None else signer.lines
    if line in lines:
        return None
    known = signer or Signer(node=node, lines=[])
    return known.model_copy(update={"lines": [*lines, line]})


class Signers:
    """`own`: this node's line, None when it does not sign."""

    def __init__(
        self, node: str, records: Records[Signer], own: str | None, conditions: Conditions | None = None
    ) -> None:
        self._node, self._records, self._own = node, records, own
        self._conditions = conditions
        self._switched = asyncio.Event()
        if isinstance(records.store, FederationStore):
            records.store.on_switch(self._switched.set)

    async def run(self) -> None:
        """Announces the node's line, and again in each federation that the node joins, until cancelled."""
        await every(
            None,
            self.announce,
            name="signers",
            wake=self._switched,
            conditions=self._conditions,
            away=Backoff(TRY_AGAIN, TRY_AGAIN),
            outages=MaoError,
        )

    async def announce(self) -> None:
        """Adds the node's line to its record, unless it is there. Raises MaoError."""
        if (own := self._own) is not None:
            await self._records.create_or_update(self._node, lambda it: with_line(it, self._node, own))

    async def allowed(self) -> str:
        """The file for `git -c gpg.ssh.allowedSignersFile=… verify-commit`."""
        signers = sorted((each.record for each in await self._records.all()), key=lambda each: each.node)
        return "".join(f"{line}\n" for signer in signers for line in signer.lines)
