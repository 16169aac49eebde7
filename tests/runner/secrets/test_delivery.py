"""The folder of secret files, and steps that get secrets on a real engine."""

from __future__ import annotations

import asyncio
import base64
import os
import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from mao_runner.drivers.docker import DockerDriver
from mao_runner.secrets.delivery import file_system, make_folder_in_memory
from mao_shared.errors import MaoError
from mao_shared.models import ResolvedImage, Run
from mao_shared.models.secret import SecretRef
from mao_shared.states import StepPhase
from tests.runner.harness import Bench, ready_run
from tests.support.docker import Engine
from tests.support.waiting import eventually

CANARY = "canary-Zx81+/secret"
MOUNTS = [
    "22 1 8:1 / / rw - ext4 /dev/sda1 rw",
    "23 22 0:5 / /dev rw - devtmpfs udev rw",
    "24 23 0:21 / /dev/shm rw,nosuid shared:4 - tmpfs tmpfs rw",
    "25 22 8:2 / /a\\040b rw - xfs /dev/sdb rw",
]


@pytest.fixture
def memory() -> Iterator[Path]:
    root = Path(tempfile.mkdtemp(prefix="mao-test-", dir="/dev/shm"))
    yield root
    shutil.rmtree(root)


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/dev/shm/mao", "tmpfs"), ("/dev/x", "devtmpfs"), ("/var/lib", "ext4"), ("/a b/c", "xfs")],
)
def test_file_system_by_the_deepest_mount(path: str, kind: str) -> None:
    assert file_system(Path(path), MOUNTS) == kind


def test_folder_must_be_private_and_in_memory(memory: Path, tmp_path: Path) -> None:
    make_folder_in_memory(memory / "new")
    assert (memory / "new").stat().st_mode & 0o777 == 0o700
    make_folder_in_memory(memory / "new")
    (memory / "open").mkdir(mode=0o755)
    (memory / "link").symlink_to(memory / "new")
    for folder, why in ((memory / "open", "other users"), (memory / "link", "somebody else")):
        with pytest.raises(MaoError, match=why):
            make_folder_in_memory(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user's folder")
def test_folder_of_another_user_is_refused(memory: Path) -> None:
    (memory / "theirs").mkdir(mode=0o700)
    os.chown(memory / "theirs", 65534, 65534)
    with pytest.raises(MaoError, match="somebody else"):
        make_folder_in_memory(memory / "theirs")


@pytest.fixture
async def bench(tmp_path: Path, memory: Path, engine: Engine) -> AsyncIterator[Bench]:
    driver = DockerDriver()
    bench = Bench(tmp_path, driver, secrets_dir=memory / "secrets")
    yield bench
    installation = (tmp_path / "installation").read_text().strip()
    await driver.close()
    await asyncio.to_thread(engine.remove, mao_installation=installation)


def shell(tool_image: str, script: str, **changes: Any) -> Run:
    image = ResolvedImage(name=tool_image, pinned=tool_image, platform="linux/amd64")
    return ready_run(f"run-{uuid.uuid4().hex[:12]}", image=image, command=["sh", "-c", script], **changes)


REFS = [SecretRef(secret="token"), SecretRef(secret="token", env="TOKEN")]
SHOW = (
    "stat -c %a /run/secrets /run/secrets/token; cat /run/secrets/token; echo; echo $TOKEN; "
    "cat /run/secrets/token | base64; touch /run/secrets/x 2>/dev/null && echo written; "
    "cat /run/secrets/token > /usr/src/app/data/seen"
)


@pytest.mark.docker
async def test_step_gets_its_secrets_and_logs_none(
    bench: Bench, memory: Path, tool_image: str, engine: Engine
) -> None:
    run = shell(
        tool_image,
        f"{SHOW}; echo ready; until [ -e /usr/src/app/data/gate ]; do sleep 0.05; done",
        secrets=REFS,
    )
    await bench.submit(run)
    async with bench.runner() as runner:
        await runner.secrets.put("token", CANARY)
        await bench.phase(run.id, StepPhase.RUNNING)
        await eventually(lambda: "ready" in bench.log(run.id))
        assert [path.name for path in (memory / "secrets").iterdir()] == [run.id]
    async with bench.runner() as runner:  # a restart in the middle; the secret changes, too
        await runner.secrets.put("token", "another-value")
        (bench.data.workspace(run.id, 0, 1).data / "gate").touch()
        step = await bench.left(run.id)
        assert step.phase is StepPhase.EXITED, step.error
        await eventually(lambda: not (memory / "secrets" / run.id).exists())

    log = bench.log(run.id)
    assert log.split("\n")[:3] == ["755", "444", "•••"]
    assert "written" not in log
    assert CANARY not in log
    assert base64.b64encode(CANARY.encode()).decode() not in log
    assert (bench.data.workspace(run.id, 0, 1).data / "seen").read_text() == CANARY
    assert step.log_bytes == len(log.encode())


@pytest.mark.docker
@pytest.mark.parametrize("refs", [[SecretRef(secret="gone")], [SecretRef(secret="gone", env="X")]])
async def test_step_without_its_secret_fails_with_reason(
    bench: Bench, tool_image: str, engine: Engine, refs: list[SecretRef]
) -> None:
    run = shell(tool_image, "true", secrets=refs)
    await bench.submit(run)
    async with bench.runner():
        step = await bench.left(run.id)
    assert step.phase is StepPhase.FAILED
    assert step.error is not None
    assert (step.error.code, step.error.next) == ("secret-missing", "Set it: maoctl secret set gone")
    assert engine.containers(mao_run=run.id) == []


@pytest.mark.docker
async def test_step_with_a_secret_needs_the_operators_agreement(bench: Bench, tool_image: str) -> None:
    run = shell(tool_image, "cat /run/secrets/token")
    await asyncio.to_thread(bench.agree, run)
    spec = run.steps[0].spec.model_copy(update={"secrets": [SecretRef(secret="token")]})
    await bench.forge(run.with_step(0, run.steps[0].model_copy(update={"spec": spec})))
    async with bench.runner() as runner:
        await runner.secrets.put("token", CANARY)
        step = await bench.left(run.id)
    assert step.error is not None
    assert step.error.code == "not-agreed"


@pytest.mark.docker
async def test_files_of_runs_that_ended_meanwhile_are_removed(bench: Bench, memory: Path) -> None:
    left = memory / "secrets/run-of-yesterday/0.1"
    left.mkdir(parents=True)
    (left / "token").write_text(CANARY)
    async with bench.runner():
        await eventually(lambda: not left.parent.exists())
