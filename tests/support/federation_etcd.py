"""A federation's etcd for tests, with TLS, client certificates, users and roles; one to five members."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import shutil
import signal
import ssl
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from mao_registry.federation import pki
from mao_registry.federation.access import invited_grants, member_grants
from mao_shared.store import Grant, TlsFiles, open_admin
from mao_shared.store.etcd_admin import Admin

from .etcd import START_SECONDS
from .ports import free_port

ADMIN = "core-1@1"  # a user with the role `root`
HOSTS = ["127.0.0.1", "localhost"]
DAY = timedelta(days=1)


class TlsEtcd:
    """One member; its addresses `client` and `peer` stay the same across restarts.

    `program` is the etcd to run; a change takes effect at the next start.
    """

    def __init__(self, name: str, directory: Path, tls: TlsFiles, program: str = "etcd") -> None:
        self.name, self.dir, self.tls, self.program = name, directory, tls, program
        self.client, self.peer = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def peer_url(self) -> str:
        return f"https://{self.peer}"

    def spawn(self, cluster: Sequence[TlsEtcd], state: str = "new") -> None:
        """Start etcd as a member of `cluster`, which includes itself; `state` is `new` or `existing`."""
        tls = [
            f"--{port}{option}={path}"
            for port in ("", "peer-")
            for option, path in (
                ("trusted-ca-file", self.tls.ca),
                ("cert-file", self.tls.certificate),
                ("key-file", self.tls.key),
                ("client-cert-auth", "true"),
            )
        ]
        with (self.dir / f"{self.name}.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *("setpriv", "--pdeathsig=KILL", self.program, f"--name={self.name}"),
                    *("--heartbeat-interval=20", "--election-timeout=200"),
                    *("--logger=zap", "--log-level=warn", "--log-outputs=stderr"),
                    f"--data-dir={self.dir}/{self.name}",
                    f"--listen-client-urls=https://{self.client}",
                    f"--advertise-client-urls=https://{self.client}",
                    f"--listen-peer-urls={self.peer_url}",
                    f"--initial-advertise-peer-urls={self.peer_url}",
                    f"--initial-cluster={','.join(f'{member.name}={member.peer_url}' for member in cluster)}",
                    f"--initial-cluster-state={state}",
                    *tls,
                ],
                stdout=log,
                stderr=log,
            )

    def await_health(self) -> None:
        """Wait until the member answers and its cluster has a leader."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                if self.request("GET", "/health")["health"] == "true":
                    return
                error = "not healthy"
            except (OSError, http.client.HTTPException) as failed:
                error = str(failed)
            assert self._process is not None
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"etcd does not answer ({error}); its log:\n{self.log()[-2000:]}")
            time.sleep(0.02)

    def request(self, method: str, path: str, **body: Any) -> Any:
        """Call etcd's JSON gateway; it does not authenticate, so this works only before auth is enabled."""
        context = ssl.create_default_context(cafile=str(self.tls.ca))
        context.load_cert_chain(self.tls.certificate, self.tls.key)
        host, _, port = self.client.rpartition(":")
        with contextlib.closing(
            http.client.HTTPSConnection(host, int(port), timeout=5, context=context)
        ) as to:
            to.request(method, path, json.dumps(body) if body or method == "POST" else None)
            response = to.getresponse()
            answer = response.read().decode()
        if response.status != http.client.OK:
            raise OSError(f"{path}: {response.status} {answer}")
        return json.loads(answer)

    def log(self) -> str:
        return (self.dir / f"{self.name}.log").read_text()

    def restart(self) -> None:
        """Restart a killed member; its data name its cluster."""
        self.spawn([self], "existing")

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def wait(self) -> int:
        """Wait until etcd exits and return the exit code."""
        assert self._process is not None
        return self._process.wait(START_SECONDS)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)
            self._process.wait(START_SECONDS)


class FederationEtcd:
    """Members that trust one authority, with auth enabled and the user `ADMIN` as root.

    `files` makes a certificate for a user; `join` also creates the user with a member's rights, `invite` with
    those of an invited node. `program` is the etcd that the members run.
    """

    def __init__(self, program: str = "etcd") -> None:
        self.program = program
        shm = Path("/dev/shm")
        self.dir = Path(tempfile.mkdtemp(prefix="mao-federation-", dir=shm if shm.is_dir() else None))
        self.authority = pki.make_authority("MAO federation test")
        self.members: list[TlsEtcd] = []
        self._numbers = itertools.count(1)

    @property
    def endpoints(self) -> str:
        return ",".join(member.client for member in self.members)

    def files(
        self,
        user: str,
        *,
        server: bool = False,
        lifetime: timedelta = DAY,
        authority: pki.Authority | None = None,
    ) -> TlsFiles:
        """Make a certificate and key for `user`, signed by `authority` or the federation's own."""
        key = pki.make_key()
        hosts = HOSTS if server else []
        request = pki.make_request(key, user, hosts)
        certificate = pki.sign(authority or self.authority, request, user, hosts, lifetime, server=server)
        place = Path(tempfile.mkdtemp(dir=self.dir, prefix=user + "-"))
        files = TlsFiles(place / "ca.pem", place / "cert.pem", place / "key.pem")
        files.ca.write_text(self.authority.certificate)
        files.certificate.write_text(certificate)
        files.key.write_text(key)
        return files

    def start(self, size: int = 1) -> None:
        """Start `size` voting members, create the users and enable auth."""
        for _ in range(size):
            self.new_member()
        for member in self.members:
            member.spawn(self.members)
        for member in self.members:
            member.await_health()
        first = self.members[0]
        first.request("POST", "/v3/auth/role/add", name="root")
        for user in ("root", ADMIN):
            first.request("POST", "/v3/auth/user/add", name=user, options={"no_password": True})
            first.request("POST", "/v3/auth/user/grant", user=user, role="root")
        first.request("POST", "/v3/auth/enable")

    def new_member(self) -> TlsEtcd:
        """Add a member, not started: call `Admin.add_learner(member.peer_url)`, then `member.spawn(…)`."""
        name = f"core-{next(self._numbers)}"  # never the same again: a removed member's data stay
        self.members.append(TlsEtcd(name, self.dir, self.files(f"{name}@1", server=True), self.program))
        return self.members[-1]

    def admin(self) -> Admin:
        return open_admin(self.endpoints, self.files(ADMIN))

    async def join(self, node: str, number: int = 1) -> TlsFiles:
        """Create the node's user with a member's rights and return its certificate."""
        return await self._let_in(f"{node}@{number}", f"node-{node}", member_grants(node))

    async def invite(self, node: str, number: int = 1) -> TlsFiles:
        """Create the node's user with an invited node's rights and return its certificate."""
        return await self._let_in(f"{node}@{number}-join", f"join-{node}", invited_grants(node))

    async def _let_in(self, user: str, role: str, grants: Sequence[Grant]) -> TlsFiles:
        admin = self.admin()
        try:
            await admin.ensure_role(role, grants)
            await admin.ensure_user(user, [role])
        finally:
            await admin.close()
        return self.files(user)

    def stop(self) -> None:
        for member in self.members:
            member.kill()
        shutil.rmtree(self.dir, ignore_errors=True)


@contextlib.contextmanager
def federation_etcd(size: int = 1, program: str = "etcd") -> Iterator[FederationEtcd]:
    """Start a federation of `size` voting members for the block, and stop it at the end."""
    federation = FederationEtcd(program)
    try:
        federation.start(size)
        yield federation
    finally:
        federation.stop()
