"""The condition `engine`: whether it answers, sees the data directory, and starts what it is given."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from mao_runner.drivers import EngineRefused
from mao_shared.conditions import Conditions
from mao_shared.errors import MaoError
from mao_shared.reconcile import every

from .outcome import fault_of_refusal

EVERY = 30.0  # seconds between two looks
EVERY_BAD = 2.0  # while something is wrong
MOST_REFUSALS = 3  # containers in a row that it refused: then it is not one image or command
START, DATA = "start", "data directory"  # subjects, beside the engine itself


class EngineWatch:
    """`run` has to run beside the runner; the step controller tells what became of each start."""

    def __init__(
        self,
        conditions: Conditions,
        ping: Callable[[], Awaitable[None]],
        check_data: Callable[[], Awaitable[None]],
    ) -> None:
        self._conditions = conditions
        self._ping = ping
        self._check_data = check_data
        self._refusals = 0

    async def run(self) -> None:
        """For ever."""
        await every(0.0, self._look_and_pause, name="engine-watch", conditions=self._conditions)

    async def _look_and_pause(self) -> float:
        return EVERY if await self.look() else EVERY_BAD

    async def look(self) -> bool:
        """One look; whether the engine answers and sees the data directory."""
        if not await self._holds(
            "", self._ping, "'docker info' shows why; start Docker or correct its socket."
        ):
            self._conditions.clear("engine", DATA)  # which cannot be told now
            return False
        return await self._holds(DATA, self._check_data, "See MAO_DATA_DIR and MAO_HOSTDIR.")

    async def _holds(self, subject: str, ask: Callable[[], Awaitable[None]], advice: str) -> bool:
        try:
            await ask()
        except MaoError as error:
            self._conditions.report(
                "engine", subject, detail=error.detail, next_step=error.next or advice, state="failed"
            )
            return False
        self._conditions.clear("engine", subject)
        return True

    def started(self) -> None:
        """A container was started: what was refused before is no fault of the engine's any more."""
        self._refusals = 0
        self._conditions.clear("engine", START)

    def refused(self, error: EngineRefused) -> None:
        """A container was not started; what is the tool's or the image's fault is not counted."""
        if fault_of_refusal(error) != "engine":
            return
        self._refusals += 1
        failed = self._refusals >= MOST_REFUSALS
        times = f" ({self._refusals} containers in a row)" if self._refusals > 1 else ""
        self._conditions.report(
            "engine",
            START,
            detail=f"The engine answers, but started no container: {error.detail.rstrip('.')}{times}.",
            next_step=error.next or "'docker run' of the same image shows why; look at Docker's log.",
            state="failed" if failed else "degraded",
        )
