"""Run one service of this machine's native node in pdb: `./dev python scripts/debug_service.py scheduler`.

The service gets the node's MAO_… variables. Meanwhile the node's supervisor is stopped, so the logs of the
other services are not read; it resumes, and restarts the service, when the debugger ends.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

from mao_node.preflight import LOCK
from mao_node.processes import node_processes
from mao_node.settings import NodeSettings


def pid_of(module: str, supervisor: int) -> int | None:
    """Return the pid of the service, a child of the supervisor; None if it does not run."""
    for pid in Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split():
        if Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").endswith(module.encode()):
            return int(pid)
    return None


def main() -> int:
    settings = NodeSettings()
    settings.data_dir = settings.data_dir.resolve()
    modules = {spec.name: spec for spec in node_processes(settings, os.environ) if spec.module is not None}
    if len(sys.argv) != 2 or sys.argv[1] not in modules:
        sys.exit(f"usage: debug_service.py {{{','.join(modules)}}}")
    spec = modules[sys.argv[1]]
    supervisor = int((settings.data_dir / LOCK).read_text())
    os.kill(supervisor, signal.SIGSTOP)
    try:
        if (running := pid_of(str(spec.module), supervisor)) is not None:
            os.kill(running, signal.SIGTERM)
        signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C is for the debugger
        env = {**spec.env, "MAO_SUPERVISOR": str(supervisor)}
        return subprocess.run([sys.executable, "-m", "pdb", "-m", str(spec.module)], env=env).returncode  # noqa: S603
    finally:
        os.kill(supervisor, signal.SIGCONT)


if __name__ == "__main__":
    sys.exit(main())
