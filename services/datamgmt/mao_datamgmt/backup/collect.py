"""Where a node's files lie, and which of them a backup has."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mao_shared.etcd_version import OUTPUT_FILE
from mao_shared.federation.resolver import FederationFiles
from mao_shared.host.data_dir import RESTORING
from mao_shared.settings import ServiceSettings

REPLACED = "replaced"  # where `restore --replace` puts what was there
STAGED = ".restore"  # in the data directory: parts of a restore's archive
GIT = ("datasets", "aside", "bare")
"""Folders with repositories, in the order in which they are read: see `collect`."""
DISKS_OWN = "lost+found"  # at the top of a file system, for root alone
_MADE_ANEW = ("etcd", "run", "worktrees", "git-home", RESTORING, REPLACED, STAGED, DISKS_OWN)
_LOCK = ".lock"
IDENTITY_FILE = "store.json"  # which etcd is the node's: a restored one is another
_TEMPORARY = ".new-"  # files and folders that are being written


@dataclass(frozen=True, slots=True)
class Places:
    """The folders of a node; `agreements` and `federation` may lie in `data`."""

    data: Path
    agreements: Path
    federation: Path

    def folder(self, name: str) -> Path:
        """Of one of `archive.FOLDERS`."""
        return {"data": self.data, "agreements": self.agreements, "federation": self.federation}[name]

    def target(self, name: str) -> Path:
        """Where a file of an archive belongs; the name was checked before."""
        folder, _, rest = name.partition("/")
        return self.folder(folder) / rest

    def in_data(self) -> Iterator[str]:
        """Names in the data directory that a backup has."""
        apart = {self.agreements, self.federation}
        for name in _names(self.data):
            if self.is_kept(name) and self.data / name not in apart:
                yield name

    def of_earlier_clones(self) -> list[str]:
        """What can be made anew from the clones, but is not to meet others."""
        return [name for name in ("worktrees",) if (self.data / name).exists()]

    @staticmethod
    def is_kept(name: str) -> bool:
        """Whether what has this name at the top of the data directory is more than can be made anew."""
        return name not in _MADE_ANEW and not name.endswith(_LOCK) and not name.startswith(_TEMPORARY)

    def in_agreements(self) -> Iterator[str]:
        yield from filter(self._is_plain, _names(self.agreements))

    def in_federation(self) -> Iterator[str]:
        yield from filter(self._is_federations, _names(self.federation))

    def may_hold(self, name: str) -> bool:
        """Whether a file of this name may be put back: over nothing that the node makes anew or uses."""
        if "/" not in name:  # what the archive says of itself
            return True
        path = self.target(name)
        kept = {
            self.federation: self._is_federations,
            self.agreements: self._is_plain,
            self.data: self.is_kept,
        }
        folder = next(each for each in kept if each in path.parents)
        return kept[folder](path.relative_to(folder).parts[0])

    @staticmethod
    def _is_plain(name: str) -> bool:
        return not name.startswith(_TEMPORARY) and name not in (REPLACED, DISKS_OWN)

    def _is_federations(self, name: str) -> bool:
        """Not the data of the federation's etcd: its other members would take what they said for unsaid."""
        files = FederationFiles(self.federation)
        left_out = {files.etcd_data.name, files.etcd_config.name, OUTPUT_FILE, IDENTITY_FILE}
        return self._is_plain(name) and name not in left_out


def places_of(settings: ServiceSettings) -> Places:
    return Places(
        data=settings.data_dir.resolve(),
        agreements=settings.agreement_files().resolve(),
        federation=settings.federation_files().resolve(),
    )


def _names(folder: Path) -> list[str]:
    try:
        return sorted(each.name for each in folder.iterdir())
    except FileNotFoundError:
        return []
