"""Whether a repository that is to be a dataset's remote is there. Blocking."""

from __future__ import annotations

import mao_git
from mao_datamgmt.context import Context
from mao_shared.models.external import RemoteState


def check_remote(context: Context, master: str) -> RemoteState:
    """Asks the remote what it has. Raises InvalidInput (`dataset-url-refused`, `dataset-unreachable`),
    Forbidden and RemoteUnavailable as a clone would."""
    mao_git.check_url(master)
    temporary = mao_git.create_clone(context.data.clone("check"), master)
    try:
        clone = mao_git.open_clone(temporary)
        branch = mao_git.default_branch(clone, context.access)
        mao_git.require_usable_if_empty(clone, context.access)
    finally:
        mao_git.discard_clone(temporary)
    return RemoteState(master=master, default_branch=branch)
