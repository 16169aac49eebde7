"""Start, measure and stop processes; memory and CPU time come from /proc."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

STOP_SECONDS = 20.0
_PR_SET_PDEATHSIG = 1
_TICKS = os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def running(
    argv: Sequence[str], log: Path, env: Mapping[str, str], cwd: Path | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process in a new session during the block; stop the whole session at its end."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            argv,
            env=env,
            cwd=cwd,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
    try:
        yield process
    except BaseException:
        print(f"last lines of {log.name}:\n" + "\n".join(log.read_text(errors="replace").splitlines()[-30:]))
        raise
    finally:
        _end(process)


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def wait_for_answer(
    url: str, process: subprocess.Popen[bytes], socket: Path | None = None, seconds: float = 120.0
) -> None:
    """Wait until `url` (over `socket` if given) answers 2xx; raises if the process ends or time is up."""
    deadline = time.monotonic() + seconds
    way = httpx.HTTPTransport(uds=None if socket is None else str(socket))
    with httpx.Client(transport=way, timeout=5) as client:
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise RuntimeError(f"{process.args!r} exited with {process.returncode} before {url} answered")
            with contextlib.suppress(httpx.TransportError):
                if client.get(url).is_success:
                    return
            time.sleep(0.1)
    raise TimeoutError(f"{url} did not answer in {seconds:.0f} s")


def tree(root: int) -> list[int]:
    """Return the process and its descendants, parents first."""
    pids = [root]
    for pid in pids:
        with contextlib.suppress(FileNotFoundError):
            for thread in Path(f"/proc/{pid}/task").iterdir():
                pids.extend(map(int, (thread / "children").read_text().split()))
    return pids


def command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()


def pss_megabytes(pid: int) -> float:
    """Return the proportional set size in MB (10^6), in which shared pages count partially."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise LookupError(f"no Pss for process {pid}")


def cpu_seconds(pid: int) -> float:
    """Return the user and system CPU time of the process, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


@dataclass(frozen=True, slots=True)
class Idle:
    """Usage of idle processes: PSS in MB, and CPU in % of one core."""

    memory: float
    cpu: float
    parts: dict[str, float]  # PSS by command line


def observe(pids: Sequence[int], seconds: float) -> Idle:
    """Measure the processes for `seconds`."""
    before = sum(map(cpu_seconds, pids))
    time.sleep(seconds)
    used = sum(map(cpu_seconds, pids)) - before
    parts = {f"{pid} {command(pid)}": pss_megabytes(pid) for pid in pids}
    return Idle(sum(parts.values()), 100 * used / seconds, parts)
