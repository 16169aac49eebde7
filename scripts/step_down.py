"""Starts a command as the user it is meant for, in a container that has to look at the host first.

    step_down.py socket PATH COMMAND...   user 10001, in the group of a socket of the host (the engine's)
    step_down.py folder PATH COMMAND...   the owner of a folder of the host: what is written there is theirs

Which group and which owner, compose.yaml cannot know, and only root may take them on. The command has no
rights left but those of that user: no capability outlasts the change, and `no-new-privileges` lets none come
back.
"""

import os
import sys
from pathlib import Path

SERVICE_USER = 10001  # of all our images
USAGE = 2


def take_on(user: int, group: int, others: list[int]) -> None:
    """The groups first: afterwards this process may not change them any more."""
    os.setgroups(others)
    os.setgid(group)
    os.setuid(user)
    os.environ["HOME"] = "/"


def socket_group(path: str) -> int:
    """The group's number; DOCKER_GID overrides what the socket shows, for engines that show another one."""
    return int(os.environ.get("DOCKER_GID") or Path(path).stat().st_gid)


def hand_down_token() -> None:
    """The node's own token and its file's owner, for `maoctl` to send if that owner is who listens.

    Who may start containers may read it anyway. It is read while we still may.
    """
    kept = Path(os.environ.get("MAO_GATEWAY_TOKEN_FILE") or "/")
    if not os.environ.get("MAO_TOKENS_FILE") and kept.is_file():
        os.environ["MAO_NODE_TOKEN"] = f"{kept.stat().st_uid}:{kept.read_text('utf-8').strip()}"


def main(arguments: list[str]) -> int:
    """Does not return when all goes well."""
    if len(arguments) < 3 or arguments[0] not in ("socket", "folder"):
        sys.stderr.write(__doc__ or "")
        return USAGE
    kind, path, *command = arguments
    try:
        if kind == "socket":
            take_on(SERVICE_USER, SERVICE_USER, [socket_group(path)])
        else:
            hand_down_token()
            status = Path(path).stat()
            take_on(status.st_uid, status.st_gid, [])
        os.execvp(command[0], command)  # noqa: S606 (the command of compose.yaml)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"step_down: {kind} {path}: {error}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
