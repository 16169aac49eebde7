"""Prepare the host's folders for user 10001, as root, before the services of a compose node start.

* The data directory, if `hostdir` names a folder of the host: an empty folder is given to that user. If it
  has content and another owner, it is not changed, and the node does not start.
* The folder for backups, if MAO_BACKUP_DIR is set: likewise, but the node starts in any case, and `maoctl
  doctor` reports the problem.
* The SSH folder: the data manager gets its own folder, with links to the files that its user can read, so
  that changes take effect at once, and copies of the others, such as the key in a user's ~/.ssh.

Prints changes and problems, with the command that fixes them. Uses only the standard library.
"""

import os
import shutil
import stat
import sys
from collections.abc import Mapping
from pathlib import Path

USER = 10001  # the user of all MAO images
LARGEST = 1 << 20  # bytes of a file in the SSH folder: keys and known_hosts are small
WELL_KNOWN = ("id_ed25519", "id_rsa", "known_hosts")
"""Linked even if they do not exist, so that they take effect once they are created."""


class Unfit(Exception):
    """A folder that the node cannot use; the arguments are the reason and the next step."""


def prepare_data(folder: Path, name: str) -> None:
    """Give the data directory to user 10001. `name`: its path on the host. Raises Unfit."""
    owner = folder.stat().st_uid
    if owner == USER:
        return
    if entries := sorted(entry.name for entry in folder.iterdir() if entry.name != "lost+found"):
        raise Unfit(
            f"{name} belongs to user {owner} and is not empty (there is {', '.join(entries[:3])}"
            f"{', …' if len(entries) > 3 else ''}); the node's data directory must belong to user {USER}.",
            "Set hostdir in .env to an empty folder. If this folder has the data of a node: "
            f"sudo chown -R {USER}:{USER} {name}",
        )
    try:
        os.chown(folder, USER, USER)
        folder.chmod(0o700)
    except OSError as error:  # such as a network file system on which root is nobody
        raise Unfit(
            f"{name} cannot be given to user {USER}: {error.strerror}.",
            f"Run it where root may: sudo chown {USER}:{USER} {name}; sudo chmod 700 {name}",
        ) from error
    sys.stdout.write(f"setup: {name} now belongs to user {USER}, who runs the node\n")


def prepare_backups(folder: Path, name: str) -> None:
    """Give an empty folder for backups to user 10001; report one with content that it cannot write to."""
    status = folder.stat()
    if all(is_open(status, bit) for bit in (stat.S_IROTH, stat.S_IWOTH, stat.S_IXOTH)):
        return
    try:
        prepare_data(folder, name)
    except Unfit:
        sys.stdout.write(
            f"setup: backups cannot be written to {name}, which belongs to user {status.st_uid}\n"
            f"  next: sudo chown {USER} {name}; sudo chmod 700 {name}\n"
        )


def is_open(status: os.stat_result, bit: int) -> bool:
    """Return True if user 10001 has a permission. `bit`: that for others, such as stat.S_IROTH."""
    if status.st_uid == USER:
        return bool(status.st_mode & bit << 6)
    return bool(status.st_mode & (bit << 3 if status.st_gid == USER else bit))


def prepare_keys(source: Path, target: Path) -> None:
    """Update the data manager's folder from the host's; remove files that no longer exist there."""
    os.chown(target, USER, USER)
    target.chmod(0o700)
    enterable = is_open(source.stat(), stat.S_IXOTH)
    files = {file.name: file for file in source.iterdir() if file.is_file()}
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
            f"{', '.join(copied)}; changes take effect at the next start\n"
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
        with file.open("rb") as original:
            shutil.copyfileobj(original, out)
        os.fchown(out.fileno(), USER, USER)
    beside.replace(place)


def check_hostdir(environ: Mapping[str, str]) -> str:
    """Return the data directory's path on the host; raises Unfit if a setting differs from the mount."""
    mounted, wanted = environ.get("hostdir", ""), environ.get("MAO_HOSTDIR", "")
    if wanted and wanted != mounted:
        raise Unfit(
            f"MAO_HOSTDIR is {wanted}, but the data directory is {mounted or 'a volume'}.",
            f"Set hostdir={wanted} in .env, so that compose mounts it at the same path.",
        )
    return mounted or "the volume mao-data"


def check_backup_dir(environ: Mapping[str, str]) -> str:
    """Return the backup folder's path on the host, empty if unset; raises Unfit for an invalid one."""
    data, backups = environ.get("hostdir", ""), environ.get("MAO_BACKUP_DIR", "")
    if backups and not backups.startswith("/"):
        raise Unfit(
            f"MAO_BACKUP_DIR is {backups}, which is not an absolute path.",
            "Set an absolute path in .env, such as MAO_BACKUP_DIR=/mnt/backup.",
        )
    if data and backups and Path(os.path.normpath(backups)).is_relative_to(os.path.normpath(data)):
        raise Unfit(
            f"MAO_BACKUP_DIR is {backups}, inside {data}: each backup would contain the earlier ones.",
            "Set it in .env to a folder outside of that, preferably on another disk.",
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
