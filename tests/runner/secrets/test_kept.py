"""The store of secrets: encryption, rotation, references, exchanged and unreadable records."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mao_runner.secrets.kept import Secrets
from mao_shared import keys
from mao_shared.clock import SystemClock
from mao_shared.errors import Conflict, InvalidInput, MaoError, NotFound, StillReferenced
from mao_shared.host.sealed import TOOL_KEYS, SealedSecrets
from mao_shared.models import Enrolment
from mao_shared.models.secret import SecretRef
from mao_shared.store.memory import MemoryStore
from tests.runner.harness import NODE, step_spec

VALUE = "s3cret-canary"


class Kept:
    def __init__(self, root: Path) -> None:
        self.root, self.store = root, MemoryStore()
        self.secrets = self.another()

    def another(self) -> Secrets:
        """Return what a restarted service has."""
        return Secrets(NODE, self.store, SealedSecrets(self.root, TOOL_KEYS), SystemClock())

    async def stored(self) -> str:
        page = await self.store.list("/")
        return " ".join(str(entry.value) for entry in page.entries)

    def keys(self) -> list[str]:
        return (self.root / TOOL_KEYS).read_text().split()


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path)


def refs(*names: str) -> list[SecretRef]:
    return [SecretRef(secret=name) for name in names]


async def test_secret_set_and_opened_after_a_restart(kept: Kept) -> None:
    state, is_new = await kept.secrets.put("token", VALUE)
    assert (state.name, is_new) == ("token", True)
    assert VALUE not in await kept.stored()
    assert await kept.another().open(refs("token")) == {"token": VALUE}
    assert (kept.root / TOOL_KEYS).stat().st_mode & 0o777 == 0o600

    changed, is_new = await kept.secrets.put("token", "another-one")
    assert (changed.created_at, is_new) == (state.created_at, False)
    assert await kept.secrets.open(refs("token")) == {"token": "another-one"}
    assert sorted(await kept.secrets.values_to_mask(refs("token"))) == ["another-one", VALUE]
    assert sorted(await kept.secrets.values_to_mask(None)) == ["another-one", VALUE]


@pytest.mark.parametrize("value", ["abc", "x" * 32_769, "ü" * 16_385])
async def test_secret_of_wrong_size_is_refused(kept: Kept, value: str) -> None:
    with pytest.raises(InvalidInput, match="bytes") as refused:
        await kept.secrets.put("token", value)
    assert refused.value.code == "secret-size"
    assert value not in str(refused.value)


async def test_secret_missing_is_named(kept: Kept) -> None:
    for call in (kept.secrets.open(refs("gone")), kept.secrets.state("gone"), kept.secrets.remove("gone")):
        with pytest.raises(NotFound, match="no secret 'gone'"):
            await call
    assert await kept.secrets.values_to_mask(refs("gone")) == []


async def test_secret_in_use_is_not_removed(kept: Kept) -> None:
    await kept.secrets.put("token", VALUE)
    step = step_spec(secrets=refs("token"))
    now = datetime.now(UTC)
    enrolment = Enrolment(pipeline="p", node=NODE, steps=[step], pipeline_revision=1, enrolled_at=now)
    await kept.store.create(keys.enrolment(NODE, "p"), enrolment.model_dump_json().encode())
    assert (await kept.secrets.state("token")).used_by == ["p/t"]
    with pytest.raises(StillReferenced, match="p/t"):
        await kept.secrets.remove("token")
    await kept.store.delete(keys.enrolment(NODE, "p"))
    await kept.secrets.remove("token")
    assert (await kept.secrets.list_()).items == []


async def test_secret_exchanged_in_the_store_is_refused(kept: Kept) -> None:
    await kept.secrets.put("mine", VALUE)
    await kept.secrets.put("other", "other-value")
    entry = await kept.store.get(keys.secret(NODE, "mine"))
    assert entry is not None
    forged = entry.value.replace(b'"mine"', b'"other"')
    other = await kept.store.get(keys.secret(NODE, "other"))
    assert other is not None
    await kept.store.replace(other.key, forged, other.revision)
    with pytest.raises(MaoError, match="exchanged"):
        await kept.secrets.open(refs("other"))
    assert await kept.secrets.values_to_mask(refs("other")) == []
    await kept.secrets.put("other", "set-again")
    assert await kept.secrets.open(refs("other")) == {"other": "set-again"}


async def test_rotation_replaces_the_key(kept: Kept) -> None:
    await kept.secrets.put("one", VALUE)
    await kept.secrets.put("two", "second-value")
    (before,) = kept.keys()
    assert await kept.secrets.rotate() == 2
    (after,) = kept.keys()
    assert after != before
    assert await kept.another().open(refs("one", "two")) == {"one": VALUE, "two": "second-value"}


async def test_rotation_that_meets_a_foreign_secret_keeps_the_old_key(kept: Kept) -> None:
    await kept.secrets.put("one", VALUE)
    old = kept.keys()
    foreign = Secrets(NODE, kept.store, SealedSecrets(kept.root / "other", TOOL_KEYS), SystemClock())
    (kept.root / "other").mkdir()
    await foreign.put("two", "from elsewhere")
    for _ in range(30):  # however often it is tried
        with pytest.raises(MaoError, match="cannot be decrypted"):
            await kept.secrets.rotate()
    assert len(kept.keys()) == 2
    assert set(old) < set(kept.keys())
    assert await kept.another().open(refs("one")) == {"one": VALUE}


async def test_rotation_and_a_set_at_once_lose_nothing(kept: Kept) -> None:
    await kept.secrets.put("one", VALUE)
    await asyncio.gather(kept.secrets.rotate(), kept.secrets.put("two", "second-value"))
    assert await kept.another().open(refs("one", "two")) == {"one": VALUE, "two": "second-value"}


async def test_secrets_are_limited(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mao_runner.secrets.kept.MAX_KEPT", 1)
    await kept.secrets.put("one", VALUE)
    with pytest.raises(Conflict, match="already"):
        await kept.secrets.put("two", VALUE)
    await kept.secrets.put("one", "changed-value")
