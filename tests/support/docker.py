"""A real Docker Engine for tests: small images built from a static busybox, removed by label."""

from __future__ import annotations

import io
import os
import tarfile
import uuid
from collections.abc import Iterator

import docker
import pytest
from docker.errors import APIError, DockerException, ImageNotFound
from docker.models.containers import Container

from mao_runner.containers import network
from mao_runner.drivers.docker_network import remove_network, run_on_host
from mao_runner.drivers.protocol import HostCommand

LABEL = "mao.test"
WRITES = 'echo "$MAO_RUN_ID,$MAO_SCHEDULED_FOR" >> /usr/src/app/data/runs.csv; echo "wrote a line"'
WAITS_FOR_GATE = f"""\
cd /usr/src/app/data
until [ -e gate ]; do sleep 0.05; done
rm gate
{WRITES}
"""
BASES = ("mao/base-busybox:local", "busybox:1.36-musl")  # loaded by `scripts/machine.sh tool-images`
MISSING = "run 'make test', which brings what is missing, or leave these tests out with -m 'not docker'"
_DOCKERFILE = """\
FROM {base}
{before}
COPY tool.sh /tool.sh
CMD ["sh", "/tool.sh"]
"""


NETWORK = os.environ["MAO_TOOL_NETWORK_NAME"] = f"mao-t{uuid.uuid4().hex[:7]}"
"""Name of the tools' network of all nodes that this test process starts.

Never inherited: a worker that ends first would remove the network of the others, and their containers.
"""


class Engine:
    """The engine, with the images that this test session builds and removes."""

    def __init__(self) -> None:
        self.client = docker.from_env(timeout=60)
        self.session = uuid.uuid4().hex[:12]
        self._images: list[str] = []
        self._base: str | None = None

    def build(self, script: str, *, before: str = "") -> str:
        """Build a busybox image that runs `script`, with extra Dockerfile lines `before`; return its name."""
        name = f"mao-test/{self.session}:{len(self._images)}"
        dockerfile = _DOCKERFILE.format(base=self.base(), before=before)
        context = _context({"Dockerfile": dockerfile.encode(), "tool.sh": script.encode()})
        self.client.images.build(
            fileobj=context, custom_context=True, tag=name, labels={LABEL: self.session}, rm=True
        )
        self._images.append(name)
        return name

    def base(self) -> str:
        """Return the name of a local busybox image; fail the test if there is none."""
        if self._base is None:
            tags = {tag for image in self.client.api.images() for tag in image["RepoTags"] or []}
            self._base = next((name for name in BASES if name in tags), None)
        if self._base is None:
            pytest.fail(f"none of the images {', '.join(BASES)} is here: {MISSING}")
        return self._base

    def containers(self, **labels: str) -> list[Container]:
        """Return all containers with these labels; `mao_run="x"` means `mao.run=x`."""
        wanted = [f"{name.replace('_', '.')}={value}" for name, value in labels.items()]
        return self.client.containers.list(all=True, filters={"label": wanted}, ignore_removed=True)

    def remove(self, **labels: str) -> None:
        """Remove the containers with these labels, running or not."""
        for container in self.containers(**labels):
            try:
                container.remove(force=True)
            except APIError as error:
                if error.status_code not in (404, 409):  # gone, or going
                    raise

    def remove_tool_network(self, name: str = NETWORK) -> None:
        """Remove a tools' network with its containers and its firewall rules."""
        for container in self.client.containers.list(
            all=True, filters={"network": name}, ignore_removed=True
        ):
            container.remove(force=True)
        remove_network(self.client.api, name)
        command = HostCommand(
            f"{name}-{self.session}", *network.removal_script(f"{name}0"), {LABEL: self.session}
        )
        run_on_host(self.client.api, command)

    def close(self) -> None:
        """Remove the images built here, their containers and the tools' network."""
        self.remove(mao_test=self.session)
        self.remove_tool_network()
        for name in self._images:
            try:
                self.client.images.remove(name, force=True)
            except ImageNotFound:
                continue
        self.client.close()


def _context(files: dict[str, bytes]) -> io.BytesIO:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), 0o755
            tar.addfile(info, io.BytesIO(content))
    buffer.seek(0)
    return buffer


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """Return the engine; fail, rather than skip, the test when no engine answers."""
    try:
        engine = Engine()
        engine.client.ping()
    except DockerException as error:
        pytest.fail(f"no Docker Engine answers ({error}): {MISSING}")
    try:
        yield engine
    finally:
        engine.close()


@pytest.fixture(scope="session")
def tool_image(engine: Engine) -> str:
    """Return an image that appends a line to runs.csv and has a shell for other commands."""
    return engine.build(WRITES)


@pytest.fixture(scope="session")
def gated_tool_image(engine: Engine) -> str:
    """Return an image like `tool_image` that first waits for a file `gate` in its data folder."""
    return engine.build(WAITS_FOR_GATE)
