"""Whether this node is enrolled in a pipeline, and the error that says it is not."""

from __future__ import annotations

from mao_shared import keys
from mao_shared.errors import Conflict, NotFound, Unavailable
from mao_shared.models.common import is_name
from mao_shared.models.enrolment import Enrolment
from mao_shared.models.pipeline import Pipeline, name_from_title, normalize_title
from mao_shared.store import Records, Store, Stored


class EnrolmentLookup:
    """Looks up enrolments in the node's store; the federation's store is read for error messages only."""

    def __init__(self, enrolments: Records[Enrolment], federation: Store) -> None:
        self._enrolments = enrolments
        self._federation = federation

    async def require(self, pipeline: str) -> Stored[Enrolment]:
        """The node's enrolment; raises NotFound (`unknown-pipeline`) or Conflict (`not-enrolled`)."""
        stored = await self._enrolments.get(pipeline)
        if stored is not None:
            return stored
        if await self._is_registered(pipeline):
            raise Conflict(
                f"This node is not enrolled in the pipeline {pipeline!r}.",
                code="not-enrolled",
                next=f"Enrol it with 'maoctl pipeline enrol {pipeline}', then run it.",
            )
        raise _unknown_pipeline(pipeline)

    async def resolve_name(self, text: str) -> str:
        """The name of the pipeline with this name or title.

        Raises NotFound (`unknown-pipeline`) if no pipeline has this title, even if one has the derived name.
        """
        if is_name(text):
            return text
        try:
            title = normalize_title(text)
        except ValueError:
            raise _unknown_pipeline(text) from None
        name = name_from_title(title)
        enrolled = await self._enrolments.find(name)
        registered = enrolled.record.title if enrolled else await self._registered_title(name)
        if registered != title:
            raise _unknown_pipeline(text)
        return name

    async def _registered_title(self, name: str) -> str | None:
        """The title in the federation, so that an error can say that the pipeline is not enrolled here."""
        try:
            found = await Records(self._federation, keys.registry_prefix("pipelines"), Pipeline).find(name)
        except Unavailable:
            return None
        return found.record.title if found else None

    async def _is_registered(self, pipeline: str) -> bool:
        try:
            return await self._federation.get(keys.registry("pipelines", pipeline)) is not None
        except Unavailable:
            return True  # unknown now; enrolling it will tell


def _unknown_pipeline(pipeline: str) -> NotFound:
    return NotFound(
        f"There is no pipeline {pipeline!r}.",
        code="unknown-pipeline",
        next="List the pipelines with 'maoctl pipeline get', or create it with 'maoctl pipeline init'.",
    )
