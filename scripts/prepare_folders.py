"""Makes the host's folders fit for user 10001, as root, before the parts of a compose node start.

* The data directory, where `hostdir` names a folder of the host: an empty one is given to that user. One that
  holds something and is another's is left alone, and the node does not start.
* The folder for backups, where MAO_BACKUP_DIR names one: likewise, but the node starts in any case, and says
  in `maoctl doctor` what it needs.
* The SSH folder: the data manager gets one of its own, with a link to each file that its user can read, so
  that a change is seen at once, and a copy of each that it cannot read, such as the key in somebody's ~/.ssh.

Prints what it did and what hinders it, with the command that helps. Needs nothing but the standard library.
"""

import os
import shutil
import stat
import sys
from collections.abc import Mapping
from pathlib import Path

USER = 10001  # of all our images
LARGEST = 1 << 20  # bytes of a file in the SSH folder: keys and known_hosts are small
WELL_KNOWN = ("id_ed25519", "id_rsa", "known_hosts")
"""Linked even while they are not there: they are found when they come."""


class Unfit(Exception):
    """A folder that the node cannot work with: what is wrong and what to do, for the one who starts it."""


def prepare_data(folder: Path, name: str) -> None:
    """Gives the data directory to our user. `name`: how the host knows it. Raises Unfit."""
    owner = folder.stat().st_uid
    if owner == USER:
        return
    if held := sorted(each.name for each in folder.iterdir() if each.name != "lost+found"):
        raise Unfit(
            f"{name} belongs to user {owner} and is not empty (there is {', '.join(held[:3])}"
            f"{', …' if len(held) > 3 else ''}); the node's data directory must be user {USER}'s.",
            "Let hostdir in .env name an empty folder. If this one is the data of a node: "
            f"sudo chown -R {USER}:{USER} {name}",
        )
    try:
        os.chown(folder, USER, USER)
        folder.chmod(0o700)
    except OSError as error:  # such as a network file system on which root is nobody
        raise Unfit(
            f"{name} cannot be given to user {USER}: {error.strerror}.",
            f"Do it where you may: sudo chown {USER}:{USER} {name}; sudo chmod 700 {name}",
        ) from error
    sys.stdout.write(f"setup: {name} now belongs to user {USER}, as whom the node works\n")


def prepare_backups(folder: Path, name: str) -> None:
    """Gives an empty folder for backups to our user; of one that is in use, says what hinders."""
    status = folder.stat()
    if all(is_open(status, bit) for bit in (stat.S_IROTH, stat.S_IWOTH, stat.S_IXOTH)):
        return
    try:
        prepare_data(folder, name)
    except Unfit:
        sys.stdout.write(
            f"setup: backups cannot be written into {name}, which is user {status.st_uid}'s\n"
            f"  next: sudo chown {USER} {name}; sudo chmod 700 {name}\n"
        )


def is_open(status: os.stat_result, bit: int) -> bool:
    """Whether our user has a right by a file's mode; `bit` as others have it, such as stat.S_IROTH."""
    if status.st_uid == USER:
        return bool(status.st_mode & bit << 6)
    return bool(status.st_mode & (bit << 3 if status.st_gid == USER else bit))


def prepare_keys(source: Path, target: Path) -> None:
    """Fills the data manager's folder from the host's; what has left that one leaves this one."""
    os.chown(target, USER, USER)
    target.chmod(0o700)
    enterable = is_open(source.stat(), stat.S_IXOTH)
    files = {each.name: each for each in source.iterdir() if each.is_file()}
    copied = []
    for name in sorted({*files, *WELL_KNOWN} if enterable else files):
        file = files.get(name, source / name)
        if enterable and (name not in files or is_open(file.stat(), stat.S_IROTH)):
            put_link(file, target / name)
        elif file.stat().st_size <= LARGEST:
            put_copy(file, target / name)
            copied.append(name)
    for old in target.iterdir():
        if old.name not in files and not (enterable and old.name in WELL_KNOWN):
            old.unlink()
    if copied:
        sys.stdout.write(
            f"setup: copied for the data manager, since user {USER} cannot read them in the SSH folder: "
            f"{', '.join(copied)}; a change of theirs counts from the next start on\n"
        )


def put_link(file: Path, place: Path) -> None:
    beside = place.with_name(f"{place.name}.new")
    beside.unlink(missing_ok=True)
    beside.symlink_to(file)
    beside.replace(place)


def put_copy(file: Path, place: Path) -> None:
    beside = place.with_name(f"{place.name}.new")
    beside.unlink(missing_ok=True)
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
        with file.open("rb") as kept:
            shutil.copyfileobj(kept, out)
        os.fchown(out.fileno(), USER, USER)
    beside.replace(place)


def check_hostdir(environ: Mapping[str, str]) -> str:
    """How the host knows the data directory. Raises Unfit where a setting says other than what is mounted."""
    mounted, wanted = environ.get("hostdir", ""), environ.get("MAO_HOSTDIR", "")
    if wanted and wanted != mounted:
        raise Unfit(
            f"MAO_HOSTDIR is {wanted}, but the data directory is {mounted or 'a volume'}.",
            f"Write hostdir={wanted} into .env: under that name compose mounts it too.",
        )
    return mounted or "the volume mao-data"


def check_backup_dir(environ: Mapping[str, str]) -> str:
    """How the host knows the folder for backups; empty: there is none. Raises Unfit for a wrong one."""
    data, backups = environ.get("hostdir", ""), environ.get("MAO_BACKUP_DIR", "")
    if backups and not backups.startswith("/"):
        raise Unfit(
            f"MAO_BACKUP_DIR is {backups}, which is no absolute path.",
            "Write the whole path into .env, such as MAO_BACKUP_DIR=/mnt/backup.",
        )
    if data and backups and Path(os.path.normpath(backups)).is_relative_to(os.path.normpath(data)):
        raise Unfit(
            f"MAO_BACKUP_DIR is {backups}, in the data directory {data}: each backup would hold the others.",
            "Let it name a folder outside of that in .env, best on another disk.",
        )
    return backups


def main() -> int:
    try:
        prepare_data(Path(os.environ["MAO_DATA_DIR"]), check_hostdir(os.environ))
        if backups := check_backup_dir(os.environ):
            prepare_backups(Path("/var/backup/mao"), backups)
        prepare_keys(Path("/etc/mao/ssh-host"), Path("/etc/mao/ssh"))
    except Unfit as fault:
        sys.stderr.write(f"setup: {fault.args[0]}\n  next: {fault.args[1]}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
