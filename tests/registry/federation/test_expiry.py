"""Certificates that nobody renews are reported before they end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mao_registry.federation import pki
from mao_registry.federation.expiry import NEAR, check_certificates, ending_certificates
from mao_registry.federation.files import RegistryFiles
from mao_shared.conditions import Conditions

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("left", "near"), [(NEAR + timedelta(seconds=1), False), (NEAR, True), (-timedelta(days=1), True)]
)
def test_ending_certificates_are_near_their_end_or_past_it(left: timedelta, near: bool) -> None:
    assert bool(ending_certificates({"client.pem": NOW + left}, NOW)) is near


async def test_certificate_condition_lasts_until_it_is_renewed(tmp_path: Path) -> None:
    files, conditions = RegistryFiles(tmp_path), Conditions()
    authority = pki.make_authority("lab", now=NOW)
    files.save(files.identity, "".join(pki.issue(authority, "node-1.1", NOW)))
    files.save(files.server_identity, "not a certificate")
    end = pki.facts(str(files.read(files.identity))).not_after

    class Context:
        def __init__(self, now: datetime, *, linked: bool = True) -> None:
            self.files, self.now, self._linked = files, now, linked

        async def find_link(self) -> Any:
            return SimpleNamespace() if self._linked else None

    async def check(now: datetime, *, linked: bool = True) -> list[tuple[str, str]]:
        await check_certificates(Context(now, linked=linked), conditions)  # type: ignore[arg-type]
        return [(found.subject, found.detail) for found in conditions.current()]

    assert await check(NOW) == []
    [(subject, detail)] = await check(end - timedelta(days=3))
    assert (subject, " ends at " in detail) == (files.identity.name, True)
    assert " ended at " in (await check(end + timedelta(days=3)))[0][1]
    later = end - timedelta(days=3)
    files.save(files.identity, "".join(pki.issue(authority, "node-1.1", later)))
    assert await check(later) == []
    await check(end + timedelta(days=300))
    assert await check(end + timedelta(days=300), linked=False) == []
