"""Test doubles, named by their behaviour."""

from __future__ import annotations

import types
from collections.abc import Callable, Coroutine, Generator, Iterable, Sequence
from datetime import datetime
from itertools import chain, cycle
from pathlib import Path
from typing import Any, TypeVar, cast

from mao_registry.consent.agreements import Agreements
from mao_registry.records.stores import Repositories
from mao_shared import keys
from mao_shared.agreements import Agreement, AgreementFiles, make_agreement
from mao_shared.clock import SystemClock
from mao_shared.errors import InvalidInput, MaoError, StoreUnavailable
from mao_shared.models import Dataset, Enrolment, ResolvedImage
from mao_shared.models.dataset import BareRepository
from mao_shared.models.node import EngineInfo
from mao_shared.models.tool import Pull
from mao_shared.store import Check, Store, Write

T = TypeVar("T")
_BY_ITSELF = (keys.members_prefix(), keys.all_peers())


class WillingServices:
    """Services for which every image exists and every dataset can be cloned; records the requests."""

    def __init__(self) -> None:
        self.images: list[tuple[str, Pull]] = []
        self.datasets: list[str] = []
        self.remotes: list[str] = []  # that were asked
        self.made: list[str] = []  # repositories
        self.asked_logs: list[tuple[str, str | None]] = []
        self.secrets: list[str] = []
        self.build = "a"  # of which all digests are made
        self.log = b"first line\nsecond line\n"

    async def resolve_image(self, image: str, pull: Pull) -> ResolvedImage:
        self.images.append((image, pull))
        return ResolvedImage(name=image, pinned=f"{image}@sha256:{self.build * 64}", platform="linux/amd64")

    def pinned(self) -> list[str]:
        """The images that were requested to be pinned, not only looked up."""
        return [image for image, pull in self.images if pull != "never"]

    async def prepare_dataset(self, dataset: Dataset) -> None:
        self.datasets.append(dataset.name)

    async def check_remote(self, master: str) -> None:
        self.remotes.append(master)

    async def make_repository(self, name: str) -> BareRepository:
        self.made.append(name)
        return BareRepository(name=name, master=f"/srv/bare/{name}.git")

    async def engine(self) -> EngineInfo:
        return EngineInfo(version="1", slots=4, cpus=2, memory=2**30, running=0)

    async def secret_names(self) -> list[str]:
        return self.secrets

    async def log_end(self, run_id: str, step: str | None, max_bytes: int) -> tuple[int, bytes]:
        self.asked_logs.append((run_id, step))
        return 0, self.log[-max_bytes:]


class ImagelessServices(WillingServices):
    """Services for which no image exists."""

    async def resolve_image(self, image: str, pull: Pull) -> ResolvedImage:
        raise InvalidInput(f"There is no image {image!r}.", code="image-not-found", next="Build it.")


class RememberedFiles(AgreementFiles):
    """Keeps agreements in memory."""

    def __init__(self) -> None:
        super().__init__(Path("/nowhere"))
        self.kept: dict[str, Agreement] = {}

    def read(self, pipeline: str) -> Agreement | None:
        return self.kept.get(pipeline)

    def agree(self, enrolment: Enrolment, now: datetime) -> None:
        self.kept[enrolment.pipeline] = make_agreement(enrolment, now, self.read(enrolment.pipeline))

    def withdraw(self, pipeline: str) -> bool:
        return self.kept.pop(pipeline, None) is not None


class RememberedAgreements(Agreements):
    """Agreements of a migrated node; never waits, so that `interleave` can drive its callers."""

    def __init__(self, repositories: Repositories) -> None:
        super().__init__(RememberedFiles(), repositories, SystemClock())
        self._migrated = True

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return call()


class RemotelessServices(WillingServices):
    """Services for which no dataset's remote is reachable."""

    async def prepare_dataset(self, dataset: Dataset) -> None:
        raise InvalidInput("Nothing is there.", code="dataset-unreachable", next="Check the URL.")


def away_store() -> Store:
    """Return a store that does not answer."""

    async def call(*_: Any, **__: Any) -> Any:
        raise StoreUnavailable("etcd does not answer.", next="Start it.")

    return cast(Store, types.SimpleNamespace(get=call, list=call, transact=call, grant=call, ping=call))


class DyingStore:
    """Forwards calls until `lives` transactions were made; the next one kills the caller instead.

    What a registry writes of itself in the background does not count.
    """

    def __init__(self, inner: Store, lives: int) -> None:
        self._inner = inner
        self.lives = lives

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def transact(self, checks: Sequence[Check], writes: Sequence[Write]) -> int | None:
        if not all(write.key.startswith(_BY_ITSELF) for write in writes):
            if self.lives == 0:
                raise Killed
            self.lives -= 1
        return await self._inner.transact(checks, writes)


class Killed(BaseException):
    """Simulates a SIGKILL where it is raised."""


@types.coroutine
def _pause() -> Generator[None, None, None]:
    yield


class PausingStore:
    """Pauses before every call, so that `interleave` decides whose call comes next."""

    def __init__(self, inner: Store) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)

        async def call(*args: Any, **options: Any) -> Any:
            await _pause()
            return await method(*args, **options)

        return call


def interleave(
    one: Coroutine[Any, Any, Any], other: Coroutine[Any, Any, Any], turns: Iterable[int]
) -> list[Any]:
    """Return what the two answer or raise if their store calls come in the order of `turns` (0, 1, …)."""
    live = {0: one, 1: other}
    answers: list[Any] = [None, None]
    for turn in chain(turns, cycle((0, 1))):
        if not live:
            break
        if turn not in live:
            continue
        try:
            live[turn].send(None)
        except StopIteration as end:
            answers[turn] = end.value
            del live[turn]
        except MaoError as error:
            answers[turn] = error
            del live[turn]
    return answers
