"""Whether a repository that is to be a dataset's remote is there. Blocking."""

from __future__ import annotations

from mao_datamgmt import repository
from mao_datamgmt.context import Context
from mao_shared.models.external import RemoteState


def check_remote(context: Context, master: str) -> RemoteState:
    """Asks the remote what it has. Raises InvalidInput (`dataset-url-refused`, `dataset-unreachable`),
    Forbidden and RemoteUnavailable as a clone would."""
    repository.check_url(master)
    temporary = repository.create_clone(context.data.clone("check"), master)
    try:
        clone = repository.open_clone(temporary)
        branch = repository.default_branch(clone, context.access)
        repository.require_usable_if_empty(clone, context.access)
    finally:
        repository.discard_clone(temporary)
    return RemoteState(master=master, default_branch=branch)
