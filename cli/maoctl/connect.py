"""The client of the node, as maoctl wants it. Imported late: it costs a fifth of a second."""

from __future__ import annotations

from stamina.instrumentation import set_on_retry_hooks

from mao_shared.clients.gateway import MaoClient
from mao_shared.clients.gateway_http import StalenessCallback

from .config import Config

TIMEOUT = 30.0  # seconds that an answer may take


def connect(
    config: Config,
    *,
    timeout: float = TIMEOUT,
    attempts: int = 3,
    on_stale: StalenessCallback | None = None,
) -> MaoClient:
    """A client that says nothing by itself: what fails is told once, at the end. Arguments as MaoClient's."""
    set_on_retry_hooks(())
    return MaoClient(config.url, token=config.token, timeout=timeout, attempts=attempts, on_stale=on_stale)
