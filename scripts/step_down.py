"""Start a command as an unprivileged user, in a container that must examine the host first.

    step_down.py socket PATH COMMAND...   user 10001, in the group of a socket of the host (the engine's)
    step_down.py folder PATH COMMAND...   the owner of a folder of the host, who then owns new files in it

compose.yaml cannot know the group and the owner, and only root can change to them. The command has only the
permissions of that user: capabilities are dropped, and `no-new-privileges` prevents regaining them.
"""

import os
import sys
from pathlib import Path

SERVICE_USER = 10001  # the user of all MAO images
USAGE = 2


def switch_user(user: int, group: int, others: list[int]) -> None:
    """Change groups, then the user, after which groups can no longer be changed."""
    os.setgroups(others)
    os.setgid(group)
    os.setuid(user)
    os.environ["HOME"] = "/"


def socket_group(path: str) -> int:
    """Return the gid of the socket, or DOCKER_GID, for engines whose socket shows another one."""
    return int(os.environ.get("DOCKER_GID") or Path(path).stat().st_gid)


def export_token() -> None:
    """Export the node's token and its file's owner, so that `maoctl` sends it only to that user's gateway.

    Called before the permission to read it is dropped. Users who may start containers can read it anyway.
    """
    path = Path(os.environ.get("MAO_GATEWAY_TOKEN_FILE") or "/")
    if not os.environ.get("MAO_TOKENS_FILE") and path.is_file():
        os.environ["MAO_NODE_TOKEN"] = f"{path.stat().st_uid}:{path.read_text('utf-8').strip()}"


def main(arguments: list[str]) -> int:
    """Execute the command; returns only after an error."""
    if len(arguments) < 3 or arguments[0] not in ("socket", "folder"):
        sys.stderr.write(__doc__ or "")
        return USAGE
    kind, path, *command = arguments
    try:
        if kind == "socket":
            switch_user(SERVICE_USER, SERVICE_USER, [socket_group(path)])
        else:
            export_token()
            status = Path(path).stat()
            switch_user(status.st_uid, status.st_gid, [])
        os.execvp(command[0], command)  # noqa: S606 (the command of compose.yaml)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"step_down: {kind} {path}: {error}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
