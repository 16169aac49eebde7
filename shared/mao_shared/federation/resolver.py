"""The federation's certificates on this node's disk: who the node is, and whom it trusts."""

from __future__ import annotations

from pathlib import Path

from mao_shared.host.files import replace_file
from mao_shared.store.tls import TlsFiles


class FederationFiles:
    """Names of the files in MAO_FEDERATION_DIR. All are the node's alone: mode 0600 in a folder of 0700."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @property
    def ca(self) -> Path:
        """The authority's certificate."""
        return self.directory / "ca.pem"

    @property
    def identity(self) -> Path:
        """The node's certificate as a client of the federation's etcd, and its private key, in one file:
        a renewal replaces both at once.
        """
        return self.directory / "client.pem"

    @property
    def server_identity(self) -> Path:
        """Certificate and key of the etcd member that a core node runs, towards clients and peers."""
        return self.directory / "server.pem"

    @property
    def etcd_config(self) -> Path:
        """etcd's own configuration file; there on core nodes alone."""
        return self.directory / "etcd.yaml"

    @property
    def etcd_data(self) -> Path:
        """Folder of the etcd member's data."""
        return self.directory / "etcd"

    def tls(self) -> TlsFiles:
        """What `open_store` takes to be this node."""
        return TlsFiles(ca=self.ca, certificate=self.identity, key=self.identity)

    def missing(self) -> list[Path]:
        """Those of the files of `tls` that are not there."""
        return [path for path in (self.ca, self.identity) if not path.is_file()]

    def write(self, path: Path, content: str | bytes) -> None:
        """Replaces one file as a whole, on disk when this returns; raises OSError."""
        replace_file(path, content.encode() if isinstance(content, str) else content)

    def write_identity(self, *, ca: str, certificate: str, key: str) -> None:
        """The files of `tls`, all PEM. Written before the `Link`, whose `generation` grows with each pair."""
        self.write(self.ca, ca)
        self.write(self.identity, f"{certificate.strip()}\n{key.strip()}\n")

    def remove_identity(self) -> None:
        """Forgets who the node was; what is not there is fine."""
        for path in (self.identity, self.ca):
            path.unlink(missing_ok=True)
