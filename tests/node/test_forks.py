"""Services forked from the template behave like processes that were started one by one."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mao_node.forks import Template, can_fork
from mao_node.processes import ProcessSpec

pytestmark = pytest.mark.skipif(not can_fork(), reason="needs Linux with pidfd_open")

PR_SET_CHILD_SUBREAPER = 36
WAITS = (
    "import os, signal\nprint(os.environ['WORD'], os.getsid(0) == os.getpid(), flush=True)\nsignal.pause()\n"
)
LEAVES_AN_ORPHAN = (
    "import subprocess\nprint(subprocess.Popen(['sleep', '60'], stdout=subprocess.DEVNULL).pid, flush=True)\n"
)


@pytest.fixture
async def template(tmp_path: Path) -> AsyncIterator[Template]:
    (tmp_path / "waits.py").write_text(WAITS)
    (tmp_path / "leaves_an_orphan.py").write_text(LEAVES_AN_ORPHAN)
    path = os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]])
    template = Template({**os.environ, "PYTHONPATH": path})
    yield template
    await template.close()
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 0)


def service(module: str, **env: str) -> ProcessSpec:
    return ProcessSpec(module, ["python", "-m", module], [], env, module)


def command_line(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/cmdline").read_bytes().decode().rstrip("\0").split("\0")


async def test_it_has_its_environment_session_name_and_parent_and_tells_how_it_ended(
    template: Template,
) -> None:
    forked = await template.fork(service("waits", WORD="hello"))

    assert await forked.stdout.readline() == b"hello True\n"
    assert command_line(forked.pid) == ["python", "-m", "waits"]
    assert f"PPid:\t{os.getpid()}\n" in Path(f"/proc/{forked.pid}/status").read_text()
    forked.send_signal(signal.SIGTERM)
    assert await forked.wait() == -signal.SIGTERM


async def test_a_module_that_fails_ends_with_its_traceback(template: Template) -> None:
    forked = await template.fork(service("no_such_module"))

    assert b"No module named no_such_module" in await forked.stdout.read()
    assert await forked.wait() == 1


async def test_what_a_service_leaves_behind_ends_with_it(template: Template) -> None:
    forked = await template.fork(service("leaves_an_orphan", PATH=os.environ["PATH"]))

    orphan = int(await forked.stdout.readline())

    assert await forked.wait() == 0
    assert not Path(f"/proc/{orphan}").exists()


async def test_services_outlive_the_template_and_the_next_one_gets_a_new_one(template: Template) -> None:
    first = await template.fork(service("waits", WORD="first"))
    await first.stdout.readline()

    await template.close()

    second = await template.fork(service("waits", WORD="second"))
    assert await second.stdout.readline() == b"second True\n"
    for forked in (first, second):
        assert forked.returncode is None
        forked.send_signal(signal.SIGKILL)
        assert await forked.wait() == -signal.SIGKILL


async def test_many_at_once(template: Template) -> None:
    words = [f"word-{i}" for i in range(8)]
    forked = await asyncio.gather(*(template.fork(service("waits", WORD=word)) for word in words))

    assert [await each.stdout.readline() for each in forked] == [f"{word} True\n".encode() for word in words]
    for each in forked:
        each.send_signal(signal.SIGKILL)
        await each.wait()
