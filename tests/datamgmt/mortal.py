"""A data manager in its own process that can be killed at a chosen step.

For each line of its input, `MODULE:NAME before|after` or `-` for no kill, it forks a data manager (to save
imports), prints its pid, and reports its end. The settings come from the environment, the stores are real.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from mao_datamgmt.app import make_app
from mao_datamgmt.settings import DataSettings

ROOT = Path(__file__).parents[2]


class Mortal:
    """The parent's side, with at most one data manager at a time."""

    def __init__(self, env: dict[str, str]) -> None:
        command = ["setpriv", "--pdeathsig=KILL", sys.executable, "-m", "tests.datamgmt.mortal"]
        self._zygote = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **env},
            cwd=ROOT,
        )
        self._pid: int | None = None

    def live(self, life: str = "-") -> None:
        """Start a data manager that is killed as `life` says."""
        assert self._zygote.stdin is not None
        self._zygote.stdin.write(life + "\n")
        self._zygote.stdin.flush()
        self._pid = int(self._line())

    def kill(self) -> None:
        """Kill the data manager with SIGKILL and wait for its end."""
        assert self._pid is not None
        os.kill(self._pid, signal.SIGKILL)
        self.wait()

    def wait(self) -> None:
        """Wait for its death; raises AssertionError if it did not end by SIGKILL."""
        assert self._line() == f"killed {self._pid}"
        self._pid = None

    def close(self) -> None:
        if self._pid is not None:
            self.kill()
        assert self._zygote.stdin is not None
        assert self._zygote.stdout is not None
        self._zygote.stdin.close()
        self._zygote.wait(20)
        self._zygote.stdout.close()

    def _line(self) -> str:
        assert self._zygote.stdout is not None
        return self._zygote.stdout.readline().strip()


def _appoint(life: str) -> None:
    """Install the kill `module:name before|after`; the name may be a method, like `mao_git:Clone.push`."""
    place, when = life.split()
    module, _, path = place.partition(":")
    *outer, name = path.split(".")
    owner: Any = importlib.import_module(module)
    for attribute in outer:
        owner = getattr(owner, attribute)
    call = getattr(owner, name)

    def last(*args: Any, **kwargs: Any) -> None:
        if when == "after":
            call(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, name, staticmethod(last) if inspect.ismethod(call) else last)


async def _serve() -> None:
    app = make_app(DataSettings())
    async with app.router.lifespan_context(app):
        await asyncio.Event().wait()


def _zygote() -> None:
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            if line.strip() != "-":
                _appoint(line)
            os.dup2(2, 1)  # other output is not part of the protocol
            asyncio.run(_serve())
        print(pid, flush=True)
        _, status = os.waitpid(pid, 0)
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        print(f"{'killed' if killed else 'ended'} {pid}", flush=True)


if __name__ == "__main__":
    _zygote()
