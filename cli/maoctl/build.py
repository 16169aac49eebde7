"""The commit that this `maoctl` was built from."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

COMMIT = "MAO_COMMIT"  # set in the container image
GIT_SECONDS = 5.0


def find_commit(environ: Mapping[str, str], package: Path = Path(__file__).parent) -> str | None:
    """Return the commit of this build, None if it is not known.

    It is named by the environment, by what pip recorded when it installed from git (PEP 610), or by the
    checkout that `package` is part of.
    """
    return environ.get(COMMIT) or _installed_commit() or _checkout_commit(package)


def _installed_commit() -> str | None:
    try:
        recorded = metadata.distribution("maoctl").read_text("direct_url.json")
        found = json.loads(recorded or "{}").get("vcs_info", {}).get("commit_id")
    except (metadata.PackageNotFoundError, ValueError, AttributeError):
        return None
    return found if isinstance(found, str) else None


def _checkout_commit(package: Path) -> str | None:
    """Return the commit of the checkout that tracks this package; a repository around it does not count."""
    git = ["git", "-C", str(package)]
    try:
        subprocess.run(  # noqa: S603
            [*git, "ls-files", "--error-unmatch", "--", "__init__.py"],
            check=True,
            capture_output=True,
            timeout=GIT_SECONDS,
        )
        done = subprocess.run(  # noqa: S603
            [*git, "describe", "--always", "--dirty", "--exclude=*", "--abbrev=12"],
            check=True,
            capture_output=True,
            text=True,
            timeout=GIT_SECONDS,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
