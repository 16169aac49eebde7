"""The gateway notices by itself that a service is away; what one answers oddly hides no other."""

from __future__ import annotations

from typing import Any

import pytest

from mao_gateway import status
from mao_shared.conditions import Conditions
from mao_shared.errors import PeerUnavailable
from mao_shared.reconcile import background
from tests.support.waiting import eventually


class Services:
    """What each service answers when it is asked: something, or what it raises."""

    def __init__(self, **answers: Exception | None) -> None:
        self.answers = answers

    async def get_json(self, service: str, *_: Any) -> tuple[int, Any]:
        if (error := self.answers[service]) is not None:
            raise error
        return 200, {}


@pytest.mark.parametrize("odd", [KeyError("status"), ValueError("no JSON"), RecursionError()])
async def test_watch_services_isolates_unexpected_answer(
    monkeypatch: pytest.MonkeyPatch, odd: Exception
) -> None:
    monkeypatch.setattr(status, "WATCH_PERIOD", 0.01)
    services = Services(registry=odd, runner=PeerUnavailable("The runner does not answer."), datamgmt=None)
    conditions = Conditions()

    def told() -> set[tuple[str, str]]:
        return {(each.name, each.subject) for each in conditions.current()}

    names = ("registry", "runner", "datamgmt")
    async with background(status.watch_services(services, names, conditions)):  # type: ignore[arg-type]
        await eventually(lambda: told() == {("item-failing", "services/registry"), ("service", "runner")})
        services.answers.update(registry=None, runner=None)
        await eventually(lambda: not told())
