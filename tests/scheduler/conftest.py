"""Fixtures of the scheduler's tests."""

from __future__ import annotations

import pytest

from .samples import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()
