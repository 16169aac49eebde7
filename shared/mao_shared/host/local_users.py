"""Which users of this machine steer the node without a token; the gateway lets in no others on loopback."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

from mao_shared.errors import InvalidInput

ROOT = 0


def users_let_in(names: str, owner_of: Path | None) -> frozenset[int]:
    """The uids: root, whoever runs the node, and those in `names` (user[,user…], by name or number).

    Who runs it is this process's user, or under compose, where that is one of the image, the owner of the
    file `owner_of`. Raises InvalidInput (`local-users-invalid`) for a user that this machine does not have.
    """
    try:
        runs_it = os.geteuid() if owner_of is None else owner_of.stat().st_uid
    except OSError as error:
        raise InvalidInput(
            f"MAO_OWNER_OF is {owner_of}, which cannot be looked at: {error.strerror}.",
            code="local-users-invalid",
            next="Let it name a file of the user who runs the node.",
        ) from error
    named = (part.strip() for part in names.split(","))
    return frozenset({ROOT, runs_it, *(_uid(name) for name in named if name)})


def _uid(name: str) -> int:
    if name.isascii() and name.isdigit():
        return int(name)
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        raise InvalidInput(
            f"MAO_LOCAL_USERS names {name!r}, which is no user here.",
            code="local-users-invalid",
            next="Write users by name or number, such as ada,1001; under compose by number (id -u ada).",
        ) from None
