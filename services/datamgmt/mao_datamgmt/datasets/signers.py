"""The public keys that sign commits in this federation, as git's list of allowed signers.

A key that was replaced stays listed, so that the commits that it signed can still be verified.
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

RETRY_SECONDS = 10.0
_PRINCIPAL = re.compile(r"[^\s,!*?\"#]+")


def allowed_line(email: str, node: str, public_key: str) -> str:
    """Return a line of an allowed-signers file. Special characters in an e-mail make it a pattern."""
    principal = email if _PRINCIPAL.fullmatch(email) else f"mao@{node}"
    return f'{principal} namespaces="git" {public_key}'


def with_line(signer: Signer | None, node: str, line: str) -> Signer | None:
    """Return the node's record with the line added, or None if it already has it. Pure."""
    lines = [] if signer is None else signer.lines
    if line in lines:
        return None
    known = signer or Signer(node=node, lines=[])
    return known.model_copy(update={"lines": [*lines, line]})


class Signers:
    """Announces the node's public key. `own` is the node's line, None if it does not sign commits."""

    def __init__(
        self, node: str, records: Records[Signer], own: str | None, conditions: Conditions | None = None
    ) -> None:
        self._node, self._records, self._own = node, records, own
        self._conditions = conditions
        self._switched = asyncio.Event()
        if isinstance(records.store, FederationStore):
            records.store.on_switch(self._switched.set)

    async def run(self) -> None:
        """Announce the node's line, also in each federation that the node joins, until cancelled."""
        await every(
            None,
            self.announce,
            name="signers",
            wake=self._switched,
            conditions=self._conditions,
            away=Backoff(RETRY_SECONDS, RETRY_SECONDS),
            outages=MaoError,
        )

    async def announce(self) -> None:
        """Add the node's line to its record if it is not there yet. Raises MaoError."""
        if (own := self._own) is not None:
            await self._records.create_or_update(self._node, lambda it: with_line(it, self._node, own))

    async def allowed(self) -> str:
        """Return the content of the file for `git -c gpg.ssh.allowedSignersFile=… verify-commit`."""
        signers = sorted(
            (stored.record for stored in await self._records.all()), key=lambda signer: signer.node
        )
        return "".join(f"{line}\n" for signer in signers for line in signer.lines)
