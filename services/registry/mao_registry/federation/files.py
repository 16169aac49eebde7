"""The registry's files in MAO_FEDERATION_DIR: drafts, pending requests, certificates of etcd."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from mao_shared.errors import MaoError
from mao_shared.etcd_version import OUTPUT_FILE, read_output
from mao_shared.federation.resolver import FederationFiles
from mao_shared.models import Name, Record, Timestamp

from .pki import Authority

M = TypeVar("M", bound=Record)


class FederationDraft(Record):
    """A federation that is being created; deleted once everything is in its store."""

    name: Name
    id: str
    created_at: Timestamp
    authority: Authority  # signs clients and servers
    peers: Authority  # signs etcd members for peer connections


class PendingRequest(Record):
    """A certificate request (PEM) and its private key, which never leaves the node."""

    key: str
    request: str


class RegistryFiles(FederationFiles):
    """The files that only the registry uses, in addition to those of all services."""

    @property
    def draft(self) -> Path:
        return self.directory / "draft.json"

    @property
    def pending(self) -> Path:
        """The request for a certificate, with its key."""
        return self.directory / "pending.json"

    @property
    def peers_ca(self) -> Path:
        return self.directory / "peers-ca.pem"

    @property
    def peer_identity(self) -> Path:
        return self.directory / "peer.pem"

    def etcd_version(self) -> str | None:
        """Return the version of this node's etcd as written by the supervisor; None if unknown."""
        text = self.read(self.directory / OUTPUT_FILE)
        return None if text is None else read_output(text)

    def invitation(self) -> FederationFiles:
        """Return the files with the invitation's certificate and key, used while the node joins."""
        return FederationFiles(self.directory / "invitation")

    def read(self, path: Path) -> str | None:
        """Read a file; None if it does not exist. Raises MaoError (`federation-dir-unusable`)."""
        try:
            return path.read_text()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._unusable(path, error.strerror or "it cannot be read") from error

    def read_draft(self) -> FederationDraft | None:
        return self._parse(self.draft, FederationDraft)

    def read_pending(self) -> PendingRequest | None:
        return self._parse(self.pending, PendingRequest)

    def _parse(self, path: Path, model: type[M]) -> M | None:
        text = self.read(path)
        try:
            return model.model_validate_json(text) if text else None
        except ValidationError as error:
            raise self._unusable(path, "it is damaged") from error

    def save(self, path: Path, content: str) -> bool:
        """Write the file unless it has this content already; return whether it was written."""
        if self.read(path) == content:
            return False
        try:
            self.write(path, content)
        except OSError as error:
            raise self._unusable(path, error.strerror or "it cannot be written") from error
        return True

    def _unusable(self, path: Path, why: str) -> MaoError:
        return MaoError(
            f"The file {path} cannot be used: {why}.",
            code="federation-dir-unusable",
            next="Set MAO_FEDERATION_DIR to a directory that belongs to the node's user.",
        )

    def remove_member(self) -> None:
        """Remove the configuration and certificates of the etcd member, but not its data."""
        for path in (self.etcd_config, self.server_identity, self.peer_identity, self.peers_ca):
            path.unlink(missing_ok=True)

    def remove_drafts(self) -> None:
        """Remove the files that are only needed to create or join a federation."""
        for path in (self.draft, self.pending):
            path.unlink(missing_ok=True)
        invitation = self.invitation()
        invitation.remove_identity()
        if invitation.directory.is_dir():
            invitation.directory.rmdir()
