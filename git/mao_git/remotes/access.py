"""Access to remotes: private keys, and the folders of this machine in which remotes may lie.

The key directory (MAO_SSH_DIR) is checked before libssh2 reads it, which has one message for all faults, and
ends the connection at the first key that it cannot read, even if the next one is usable.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from mao_shared.errors import Forbidden
from mao_shared.git_urls import local_path

from .errors import at_remote
from .host_keys import NO_TEXT

KEY_NAMES = ("id_ed25519", "id_ecdsa", "id_rsa")
_KEY_DIRECTORY = "key directory"  # name of a fault that is of the folder itself
_MAX_KEY_SIZE = 64 << 10  # bytes of a file that may be a key
_IN_FOLDER = "In the folder of MAO_SSH_DIR (under compose: on the host)"
_OWN_LINES = re.compile(
    rb"^-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----\s*\n.*^-----END [A-Z0-9 ]*PRIVATE KEY-----", re.M | re.S
)
_MAGIC = b"openssh-key-v1\0"
_PUBLIC = re.compile(
    rb"\s*(?:ssh-(?:ed25519|rsa|dss)|ecdsa-sha2-\S+|sk-\S+) |---- BEGIN SSH2 PUBLIC|-----BEGIN PUBLIC"
)
_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]*)PRIVATE KEY-----(.*?)-----END \1PRIVATE KEY-----", re.DOTALL)
_MAX_ALTERNATES = 100  # of a repository and of those, together


@dataclass(frozen=True, slots=True)
class KeyFault:
    """A problem with a file of the key directory, and how to fix it. `usable`: the file is used anyway."""

    name: str
    why: str
    next: str
    usable: bool = False

    @property
    def text(self) -> str:
        """The problem in one line, for a message."""
        return f"{self.name}: {self.why}"


def usable_keys(folder: Path | None) -> list[Path]:
    """List the usable private keys, best first. Blocking."""
    if folder is None:
        return []
    paths = [folder / name for name in KEY_NAMES if _exists(folder / name)]
    return [path for path in paths if (fault := key_fault(path)) is None or fault.usable]


def key_faults(folder: Path | None) -> list[KeyFault]:
    """List what is wrong in a key directory; empty if none is set or the folder is empty. Blocking."""
    if folder is None:
        return []
    name = _KEY_DIRECTORY
    try:
        next(folder.iterdir(), None)
        (folder / KEY_NAMES[0]).exists()
    except FileNotFoundError:
        advice = f"Make it, with a key in it: mkdir -m 700 {quote(str(folder))}"
        return [KeyFault(name, f"{folder} (MAO_SSH_DIR) does not exist", advice)]
    except NotADirectoryError:
        advice = "Set MAO_SSH_DIR to the folder that holds the key."
        return [KeyFault(name, f"{folder} (MAO_SSH_DIR) is a file", advice)]
    except PermissionError:
        return [_unreadable(folder, name)]
    found = [key_fault(folder / name) for name in KEY_NAMES if _exists(folder / name)]
    return [fault for fault in (*found, _known_hosts_fault(folder / "known_hosts")) if fault is not None]


def _exists(path: Path) -> bool:
    """True if there is a file of this name, or a link that should lead to one.

    Under compose each name is a link into the host's folder, so that a key is found once it is put there.
    """
    try:
        target = path.parent / path.readlink()
    except OSError:  # no link, or one that cannot be read
        return os.path.lexists(path)
    comes_later = target.name == path.name and target.parent.is_dir() and not os.path.lexists(target)
    return not comes_later


def why_no_key(folder: Path | None) -> str:
    """Return why no key can be offered, for a message."""
    if folder is None:
        return "there is none: MAO_SSH_DIR is not set"
    if wrong := [fault for fault in key_faults(folder) if not fault.usable and fault.name != "known_hosts"]:
        return "; ".join(fault.text for fault in wrong)
    others = sorted(
        p.name for p in folder.iterdir() if p.suffix != ".pub" and not p.name.startswith("known_hosts")
    )
    there = f"; there are {', '.join(others[:5])}" if others else ""
    return f"no file in the key directory is called {', '.join(KEY_NAMES[:-1])} or {KEY_NAMES[-1]}{there}"


def key_advice(folder: Path | None) -> str | None:
    """Return the next step for the first unusable key; None if all are usable."""
    wrong = [fault for fault in key_faults(folder) if not fault.usable and fault.name != "known_hosts"]
    return wrong[0].next if wrong else None


def _unreadable(path: Path, name: str) -> KeyFault:
    me = os.geteuid()
    try:
        status = path.stat()
        facts = f" (mode {stat.S_IMODE(status.st_mode):04o}, it belongs to user {status.st_uid})"
    except OSError:
        facts = ""
    target = "." if name == _KEY_DIRECTORY else name
    mode = "700" if target == "." else "600"
    return KeyFault(
        name,
        f"user {me}, as whom the node runs, cannot read it{facts}",
        f"{_IN_FOLDER}: chown {me} {target} && chmod {mode} {target}",
    )


def key_fault(path: Path) -> KeyFault | None:
    """Return what is wrong with a private key; None if nothing is. Blocking."""
    name = path.name
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            return KeyFault(
                name,
                "it is a folder",
                "Put the key itself there. (A container mount of a missing file creates a folder.)",
            )
        if not stat.S_ISREG(status.st_mode):
            return KeyFault(name, "it is not a regular file", "Put the key itself there.")
        with path.open("rb") as file:
            content = file.read(_MAX_KEY_SIZE)
    except FileNotFoundError:
        return KeyFault(
            name,
            "it is a broken symbolic link",
            "Put the key itself there: a container sees no other folder.",
        )
    except PermissionError:
        return _unreadable(path, name)
    except OSError as error:
        return KeyFault(name, f"it cannot be read ({error.strerror})", "Put the key there again.")
    if fault := _content_fault(name, content):
        return KeyFault(name, *fault)
    if status.st_mode & stat.S_IROTH:
        return KeyFault(
            name,
            f"all users of this machine may read it (mode {stat.S_IMODE(status.st_mode):04o})",
            f"{_IN_FOLDER}: chown {os.geteuid()} {name} && chmod 600 {name}",
            usable=True,
        )
    return None


def _content_fault(name: str, content: bytes) -> tuple[str, str] | None:
    """Return what is wrong with the content of a private key, and how to fix it. Pure."""
    if not content.strip():
        return "it is empty", "Put the key there, or remove the file."
    if _PUBLIC.match(content):
        return (
            "it is a public key, which is for the server",
            "Put the private one there, the file without .pub beside it; or make a pair: "
            f"ssh-keygen -t ed25519 -N '' -f {name}",
        )
    if content.startswith(b"PuTTY-User-Key-File"):
        return "it is in PuTTY's format", f"Convert it: puttygen KEY.ppk -O private-openssh -o {name}"
    block = _BLOCK.search(content)
    if block is None:
        return (
            "it is not a private key, or it is truncated",
            f"Copy it again, whole; or make one: ssh-keygen -t ed25519 -N '' -f {name}",
        )
    if block[1] == b"ENCRYPTED " or b"ENCRYPTED" in block[2] or _openssh_cipher(block) not in (None, b"none"):
        return (
            "it has a passphrase, which the node cannot enter",
            f"Remove it from a copy for the node: ssh-keygen -p -N '' -f {name} ; or make one for it alone: "
            f"ssh-keygen -t ed25519 -N '' -f {name}",
        )
    if not _OWN_LINES.search(content):
        return (
            "its lines were changed: '-----BEGIN' and '-----END' have to begin separate lines, with "
            "nothing before them",
            f"Copy the file again as it is, not through a form or an editor; ssh-keygen -y -f {name} must "
            "print its public key.",
        )
    if block[1] == b"OPENSSH " and _openssh_cipher(block) is None:
        return (
            "it is damaged",
            f"Copy it again, whole; ssh-keygen -y -f {name} must print its public key.",
        )
    return None


def _openssh_cipher(block: re.Match[bytes]) -> bytes | None:
    """Return the cipher of a key in OpenSSH's format, `none` without encryption; None for another format."""
    try:
        body = base64.b64decode(b"".join(block[2].split()), validate=True)
    except (binascii.Error, ValueError):
        return None
    if not body.startswith(_MAGIC):
        return None
    fields, at = [], len(_MAGIC)
    for place in range(5):  # cipher, KDF, its options, (number of keys), public key, private part
        at += 4 if place == 3 else 0
        length = int.from_bytes(body[at : at + 4], "big")
        at += 4 + length
        fields.append(body[at - length : at])
    return fields[0] if at <= len(body) else None


def _known_hosts_fault(path: Path) -> KeyFault | None:
    name = path.name
    try:
        if b"\0" in path.read_bytes():
            return KeyFault(name, NO_TEXT, f"Write it again: ssh-keyscan HOST | iconv -t utf-8 > {name}")
    except FileNotFoundError:
        if not path.is_symlink() or not _exists(path):
            return None  # reported with the first host that has to be in it
        return KeyFault(name, "it is a broken symbolic link", "Put the file itself there.")
    except IsADirectoryError:
        return KeyFault(name, "it is a folder", f"Remove it; then: ssh-keyscan HOST >> {name}")
    except PermissionError:
        return _unreadable(path, name)
    except OSError as error:
        return KeyFault(name, f"it cannot be read ({error.strerror})", "Put the file there again.")
    return None


@dataclass(frozen=True, slots=True)
class RemoteAccess:
    """How this node opens remotes: with the private keys in `key_dir`, without an agent or passwords.

    `roots`: folders below which repositories of this machine may be opened, see `local`.
    """

    key_dir: Path | None = None
    roots: tuple[Path, ...] = ()

    def private_keys(self) -> list[Path]:
        """List the usable private keys, best first. Blocking."""
        return usable_keys(self.key_dir)

    def local(self, url: str) -> Path | None:
        """Return the real path of a remote on this machine; None for a remote over the network.

        Checked each time a remote is opened, since a link may have been put there meanwhile: this process has
        permissions that the dataset's owner may lack. Raises Forbidden (`remote-not-allowed`) if the
        repository, or a part of it that its files refer to, is outside of `roots`, and what `at_remote`
        raises.
        """
        path = local_path(url)
        if path is None:
            return None
        real = Path(os.path.realpath(path))
        self._require(real, url)
        with at_remote(url, real):
            parts = list(_parts(real))
        for part in parts:
            self._require(part, url)
        return real

    def _require(self, real: Path, url: str) -> None:
        if any(real.is_relative_to(os.path.realpath(root)) for root in self.roots):
            return
        shown = "" if str(real) == url else f", which is {real},"
        folders = dict.fromkeys(map(str, (*self.roots, real.parent)))
        setting = os.pathsep.join(
            folder for folder in folders if os.pathsep not in folder
        )  # such a path cannot be in a list
        raise Forbidden(
            f"The remote {url}{shown} is outside of the folders in which this node may open repositories "
            f"({', '.join(map(str, self.roots)) or 'there is none'}).",
            code="remote-not-allowed",
            next=f"If the node may write there, set MAO_LOCAL_REMOTES={setting} in its "
            f"environment and restart it; under compose in .env, with {real.parent} mounted at the same "
            "place (docs/datasets.md). Else use a remote over SSH or https, or make one that the node "
            "keeps: maoctl dataset init NAME. Commits made meanwhile are kept.",
            remote=url,
        )


def _parts(repository: Path) -> Iterator[Path]:
    """Yield the real paths of a repository's parts that may lie elsewhere: links, `gitdir:`, alternates."""
    inside = repository / ".git"
    named = _first_line(inside) if inside.is_file() else ""
    if named.startswith("gitdir:"):
        inside = repository / named.removeprefix("gitdir:").strip()
    git = inside if inside.exists() else repository
    if git != repository:
        yield Path(os.path.realpath(git))
    common = _first_line(git / "commondir")
    folders = [git, *([git / common] if common else [])]
    for folder in folders:
        yield Path(os.path.realpath(folder))
        names = ("HEAD", "config", "packed-refs", "refs", "objects")
        yield from _linked(folder / name for name in names)
        for name in ("objects", "objects/pack", "objects/info", "refs", "refs/heads"):
            yield from _linked(_entries(folder / name))
        todo, seen = [folder / "objects"], 0
        while todo and seen < _MAX_ALTERNATES:
            objects = todo.pop()
            for line in _file_lines(objects / "info" / "alternates"):
                seen += 1
                other = Path(os.path.realpath(objects / line))
                yield other
                todo.append(other)


def _linked(paths: Iterable[Path]) -> Iterator[Path]:
    return (Path(os.path.realpath(path)) for path in paths if path.is_symlink())


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _first_line(path: Path) -> str:
    return next(iter(_file_lines(path)), "")


def _file_lines(path: Path) -> list[str]:
    if not path.is_file():
        return []
    lines = path.read_text(errors="replace").splitlines()[:_MAX_ALTERNATES]
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]
