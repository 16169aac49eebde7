"""Looks up this node's enrolment in a pipeline; the errors say why there is none."""

from __future__ import annotations

from contextlib import suppress

from mao_shared import keys
from mao_shared.errors import Conflict, NotFound, Unavailable
from mao_shared.models import Enrolment, Pipeline, is_name
from mao_shared.models.pipeline import name_from_title, normalize_title
from mao_shared.store import Records, Store, Stored


class EnrolmentLookup:
    """Looks up enrolments in the node's store; the federation's store is read for error messages only."""

    def __init__(self, enrolments: Records[Enrolment], federation: Store) -> None:
        self._enrolments = enrolments
        self._federation = federation

    async def require(self, pipeline: str) -> Stored[Enrolment]:
        """Return the node's enrolment. Raises NotFound (`unknown-pipeline`) or Conflict (`not-enrolled`)."""
        stored = await self._enrolments.get(pipeline)
        if stored is not None:
            return stored
        try:
            is_registered = await self._federation.get(keys.registry("pipelines", pipeline)) is not None
        except Unavailable:
            is_registered = True  # unknown; the attempt to enrol will find out
        if is_registered:
            raise Conflict(
                f"This node is not enrolled in the pipeline {pipeline!r}.",
                code="not-enrolled",
                next=f"Enrol it with 'maoctl pipeline enrol {pipeline}', then run it.",
            )
        raise _unknown_pipeline(pipeline)

    async def resolve_name(self, text: str) -> str:
        """Return the name of the pipeline with this name or title.

        Raises NotFound (`unknown-pipeline`) if no pipeline has this title, even if one has the derived name.
        """
        if is_name(text):
            return text
        try:
            title = normalize_title(text)
        except ValueError:
            raise _unknown_pipeline(text) from None
        name = name_from_title(title)
        stored_pipeline: Stored[Enrolment] | Stored[Pipeline] | None = await self._enrolments.find(name)
        if stored_pipeline is None:  # it may be registered but not enrolled here
            with suppress(Unavailable):
                stored_pipeline = await Records(
                    self._federation, keys.registry_prefix("pipelines"), Pipeline
                ).find(name)
        if stored_pipeline is None or stored_pipeline.record.title != title:
            raise _unknown_pipeline(text)
        return name


def _unknown_pipeline(pipeline: str) -> NotFound:
    return NotFound(
        f"There is no pipeline {pipeline!r}.",
        code="unknown-pipeline",
        next="List the pipelines with 'maoctl pipeline get', or create it with 'maoctl pipeline create'.",
    )
