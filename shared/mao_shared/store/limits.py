"""What both stores refuse, in the same words. The limits are etcd's own, checked before sending."""

from __future__ import annotations

from collections.abc import Sequence

from mao_shared.errors import InvalidInput, StoreUnavailable

from .protocol import Check, Put, Write

MAX_OPERATIONS = 128  # etcd --max-txn-ops
MAX_BYTES = 1_500_000  # of keys and values; etcd --max-request-bytes is 1.5 MiB with its wrapping


def check_limits(checks: Sequence[Check], writes: Sequence[Write]) -> None:
    """Raises ValueError for a transaction no code should build, InvalidInput for too much content."""
    if max(len(checks), len(writes)) > MAX_OPERATIONS:
        raise ValueError(f"a transaction has at most {MAX_OPERATIONS} checks and as many writes")
    if len({write.key for write in writes}) < len(writes):
        raise ValueError("a transaction writes each key at most once")
    puts = [write for write in writes if isinstance(write, Put)]
    size = sum(len(put.key.encode()) + len(put.value) for put in puts)
    if size > MAX_BYTES:
        largest = max(puts, key=lambda put: len(put.value))
        raise InvalidInput(
            f"The record {largest.key!r} does not fit: {size} bytes in one write, "
            f"but the store takes at most {MAX_BYTES}.",
            code="record-too-large",
            next="Shorten what the record holds: descriptions, commands, environment, number of steps.",
        )


def lease_ended() -> StoreUnavailable:
    return StoreUnavailable(
        "The lease of this write has ended, so nothing was written.",
        code="lease-ended",
        next="Try again; a new lease is taken as soon as the store answers.",
    )
