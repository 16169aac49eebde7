"""A real sshd with its own keys and port, run as the current user."""

from __future__ import annotations

import contextlib
import getpass
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .ports import free_port

START_DEADLINE = 10.0  # seconds


@dataclass(frozen=True)
class SshServer:
    """An sshd; `key_dir` serves as MAO_SSH_DIR, with id_ed25519 and a known_hosts for this server."""

    port: int
    user: str
    root: Path
    key_dir: Path
    address: str = "127.0.0.1"

    def url(self, path: Path) -> str:
        return f"ssh://{self.user}@{self.address}:{self.port}{path}"

    def host_key_line(self) -> str:
        """Return the line that `ssh-keyscan` prints for this server."""
        kind, key = (self.root / "host_key.pub").read_text().split()[:2]
        return f"[{self.address}]:{self.port} {kind} {key}\n"

    def fingerprint(self) -> str:
        """Return the host key's fingerprint (`SHA256:…`) as `ssh-keygen -lf` prints it."""
        printed = subprocess.run(
            ["ssh-keygen", "-lf", str(self.root / "host_key.pub")], check=True, capture_output=True, text=True
        )
        return printed.stdout.split()[1]


def keygen(path: Path) -> None:
    """Create an ed25519 key pair without a passphrase."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)


@contextlib.contextmanager
def ssh_server(root: Path, address: str = "127.0.0.1") -> Iterator[SshServer]:
    """Run an sshd that allows only git commands, with all its files in `root`."""
    server = prepare(root, address)
    with serving(server):
        yield server


def prepare(root: Path, address: str = "127.0.0.1") -> SshServer:
    """Write the keys and configuration of a server, without starting it."""
    root.mkdir(parents=True, exist_ok=True)
    key_dir = root / "keys"
    key_dir.mkdir(mode=0o700)
    keygen(root / "host_key")
    keygen(key_dir / "id_ed25519")
    server = SshServer(free_port(), getpass.getuser(), root, key_dir, address)
    (key_dir / "known_hosts").write_text(server.host_key_line())
    (root / "sshd_config").write_text(_config(server))
    shutil.copy(key_dir / "id_ed25519.pub", root / "authorized_keys")
    return server


@contextlib.contextmanager
def serving(server: SshServer) -> Iterator[None]:
    """Run a prepared server for the block; it can be run again."""
    if getpass.getuser() == "root":
        # sshd's privilege separation directory as root. The system's service creates it at boot and keeps it;
        # it is kept here too, since other tests may use it.
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    sshd = shutil.which("sshd") or "/usr/sbin/sshd"
    with (server.root / "sshd.log").open("wb") as log:
        process = subprocess.Popen([sshd, "-D", "-e", "-f", str(server.root / "sshd_config")], stderr=log)
        try:
            _await_port(server, process, server.root / "sshd.log")
            yield
        finally:
            process.terminate()
            process.wait()


def _config(server: SshServer) -> str:
    lines = [
        f"Port {server.port}",
        f"ListenAddress {server.address}",
        f"HostKey {server.root}/host_key",
        f"AuthorizedKeysFile {server.root}/authorized_keys",
        f"PidFile {server.root}/sshd.pid",
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
        "UsePAM no",
        "PermitRootLogin prohibit-password",
        "StrictModes no",  # a test's temporary folder may be below a world-writable folder
        "MaxStartups 100",
        f'ForceCommand {shutil.which("git-shell")} -c "$SSH_ORIGINAL_COMMAND"',
    ]
    return "\n".join(lines) + "\n"


def _await_port(server: SshServer, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_DEADLINE
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"sshd did not start: {log.read_text()}")
        with contextlib.suppress(OSError), socket.create_connection((server.address, server.port), timeout=1):
            return
        time.sleep(0.02)
    raise RuntimeError("sshd did not open its port in time")
