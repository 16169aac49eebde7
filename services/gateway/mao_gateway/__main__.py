"""`python -m mao_gateway`: serves the node; `--new-token NAME` creates a token for the tokens file."""

from __future__ import annotations

import sys

from mao_shared.service.app import run_service

from .app import make_app
from .auth import new_token
from .settings import GatewaySettings


def main(arguments: list[str]) -> int:
    """Run the gateway or create a token; return the exit code: 0, or 2 for invalid settings."""
    if arguments[:1] == ["--new-token"] and len(arguments) == 2:
        token, line = new_token(arguments[1])
        sys.stdout.write(f"{line}\n")
        sys.stderr.write(f"token (shown once): {token}\nadd the line above to MAO_TOKENS_FILE\n")
        return 0
    return run_service("gateway", GatewaySettings, make_app)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
