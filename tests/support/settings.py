"""Settings of services without the environment, which pydantic-settings reads slowly."""

from __future__ import annotations

import functools
from typing import Any, TypeVar

from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

S = TypeVar("S", bound=BaseSettings)


def given(settings: type[S], **values: Any) -> S:
    """Settings of these values and the defaults, validated as usual, whatever the environment says."""
    made: S = _without_environment(settings)(**values)
    return made


@functools.cache
def _without_environment(settings: type[S]) -> type[S]:
    return type(settings.__name__, (settings,), {"settings_customise_sources": classmethod(_given_alone)})


def _given_alone(*_: Any, init_settings: PydanticBaseSettingsSource, **others: Any) -> Any:
    return (init_settings,)
