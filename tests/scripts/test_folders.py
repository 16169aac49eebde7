"""The work of compose containers as root at their start: preparing folders and dropping privileges."""

from __future__ import annotations

import importlib.util
import os
import stat
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.support.users import NOBODY, SOMEBODY, as_user, common_folder, needs_root

REPO = Path(__file__).resolve().parents[2]
NODE = 10001
pytestmark = needs_root


def loaded(name: str) -> ModuleType:
    """Load a script that containers run as a module."""
    spec = importlib.util.spec_from_file_location(name, REPO / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


prepare = loaded("prepare_folders")


@pytest.mark.parametrize(("owner", "mode"), [(0, 0o755), (SOMEBODY, 0o700), (NODE, 0o755)])
@pytest.mark.parametrize("held", [None, "lost+found"])
def test_folders_empty_data_folder_is_given_to_nodes_user(
    tmp_path: Path, owner: int, mode: int, held: str | None
) -> None:
    folder = tmp_path / "data"
    folder.mkdir(mode=mode)
    os.chown(folder, owner, owner)
    if held:
        (folder / held).mkdir()
    prepare.prepare_data(folder, "/srv/mao")
    status = folder.stat()
    assert (status.st_uid, status.st_gid) == (NODE, NODE)
    assert owner == NODE or status.st_mode & 0o777 == 0o700


@pytest.mark.parametrize(("owner", "mode"), [(0, 0o755), (SOMEBODY, 0o700), (NODE, 0o500)])
@pytest.mark.parametrize("held", [None, "mao-node-1-20260131T120000Z.tar.gz"])
def test_folders_backup_folder_is_chowned_or_the_command_shown(
    tmp_path: Path, owner: int, mode: int, held: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    if held:
        (tmp_path / held).touch()
    os.chown(tmp_path, owner, owner)
    tmp_path.chmod(mode)
    prepare.prepare_backups(tmp_path, "/mnt/backup")
    told = capsys.readouterr().out
    if held and owner != NODE:
        assert (tmp_path.stat().st_uid, stat.S_IMODE(tmp_path.stat().st_mode)) == (owner, mode)
        assert "sudo chown 10001 /mnt/backup" in told
    else:
        assert tmp_path.stat().st_uid == NODE


@pytest.mark.parametrize(("owner", "mode"), [(0, 0o1777), (NODE, 0o700)])
def test_folders_folder_that_takes_backups_is_left_as_it_is(
    tmp_path: Path, owner: int, mode: int, capsys: pytest.CaptureFixture[str]
) -> None:
    os.chown(tmp_path, owner, owner)
    tmp_path.chmod(mode)
    prepare.prepare_backups(tmp_path, "/mnt/backup")
    assert (tmp_path.stat().st_uid, stat.S_IMODE(tmp_path.stat().st_mode)) == (owner, mode)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "wrong", ["/srv/mao", "/srv/mao/backup", "/srv/x/../mao/b/", "backups", "./b", "~/b"]
)
def test_folders_backup_folder_must_be_absolute_and_outside_the_data(wrong: str) -> None:
    with pytest.raises(prepare.Unfit):
        prepare.check_backup_dir({"hostdir": "/srv/mao/", "MAO_BACKUP_DIR": wrong})
    for data, backups in (("/srv/mao", "/srv/mao-backup"), ("", "/srv"), ("/srv/mao", "")):
        assert prepare.check_backup_dir({"hostdir": data, "MAO_BACKUP_DIR": backups}) == backups


@pytest.mark.parametrize("held", [[".profile"], ["bare", "clones", "installation", "workspaces"]])
def test_folders_data_folder_with_things_of_others_is_left_alone(tmp_path: Path, held: list[str]) -> None:
    for name in held:
        (tmp_path / name).mkdir()
    os.chown(tmp_path, SOMEBODY, SOMEBODY)
    with pytest.raises(prepare.Unfit) as caught:
        prepare.prepare_data(tmp_path, "/home/ada")
    detail, next_step = caught.value.args
    assert f"/home/ada belongs to user {SOMEBODY} and is not empty" in detail
    assert held[0] in detail
    assert "sudo chown -R 10001:10001 /home/ada" in next_step
    assert tmp_path.stat().st_uid == SOMEBODY


def test_folders_data_of_node_are_taken_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()
    os.chown(tmp_path, NODE, NODE)
    prepare.prepare_data(tmp_path, "/srv/mao")
    assert (tmp_path / "bare").stat().st_uid == 0


@pytest.mark.parametrize(
    ("environ", "name"),
    [({}, "the volume mao-data"), ({"hostdir": "/a"}, "/a"), ({"hostdir": "/a", "MAO_HOSTDIR": "/a"}, "/a")],
)
def test_folders_data_directory_has_name_that_host_knows(environ: dict[str, str], name: str) -> None:
    assert prepare.check_hostdir(environ) == name


@pytest.mark.parametrize("mounted", ["", "/other"])
def test_folders_data_directory_that_is_named_and_not_mounted_is_told(mounted: str) -> None:
    with pytest.raises(prepare.Unfit) as caught:
        prepare.check_hostdir({"hostdir": mounted, "MAO_HOSTDIR": "/srv/mao"})
    assert "hostdir=/srv/mao" in caught.value.args[1]


class Keys:
    """The host's SSH folder and the data manager's copy."""

    def __init__(self, place: Path) -> None:
        self.source, self.target = place / "ssh", place / "mine"
        self.source.mkdir()
        self.target.mkdir()

    def put(self, name: str, text: str, mode: int, owner: int = SOMEBODY) -> None:
        (self.source / name).write_text(text)
        (self.source / name).chmod(mode)
        os.chown(self.source / name, owner, owner)

    def prepare(self) -> None:
        prepare.prepare_keys(self.source, self.target)

    def read(self, name: str) -> str:
        """Read a file as the node's user without further groups."""
        done = subprocess.run(as_user(NODE, "cat", str(self.target / name)), capture_output=True, text=True)
        return done.stdout if done.returncode == 0 else done.stderr


@pytest.mark.parametrize("folder_mode", [0o700, 0o755])
@pytest.mark.parametrize("name", ["id_ed25519", "id_rsa", "signing_key"])
def test_folders_key_that_only_its_owner_reads_is_copied(name: str, folder_mode: int) -> None:
    with common_folder() as place:
        keys = Keys(place)
        keys.put(name, "secret", 0o600)
        os.chown(keys.source, SOMEBODY, SOMEBODY)
        keys.source.chmod(folder_mode)
        keys.prepare()
        status = (keys.target / name).lstat()
        assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (NODE, 0o600)
        assert keys.read(name) == "secret"
        assert keys.target.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(("mode", "owner"), [(0o644, SOMEBODY), (0o600, NODE)])
def test_folders_readable_key_is_linked_and_change_is_seen_at_once(mode: int, owner: int) -> None:
    with common_folder() as place:
        keys = Keys(place)
        keys.put("known_hosts", "one\n", mode, owner)
        keys.prepare()
        assert (keys.target / "known_hosts").is_symlink()
        keys.put("known_hosts", "two\n", mode, owner)
        assert keys.read("known_hosts") == "two\n"
        keys.put("id_ed25519", "later", mode, owner)  # not there when the node was started
        assert keys.read("id_ed25519") == "later"


def test_folders_new_start_follows_what_folder_holds_now() -> None:
    with common_folder() as place:
        keys = Keys(place)
        keys.source.chmod(0o700)
        keys.put("id_rsa", "old", 0o600)
        keys.put("known_hosts", "one", 0o644)
        keys.prepare()
        keys.put("id_rsa", "new", 0o600)
        (keys.source / "known_hosts").unlink()
        keys.prepare()
        assert keys.read("id_rsa") == "new"
        assert [path.name for path in keys.target.iterdir()] == ["id_rsa"]


def step_down(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-I", "-S", str(REPO / "scripts/step_down.py"), *words]
    return subprocess.run(argv, env={"PATH": os.environ["PATH"], **env}, capture_output=True, text=True)


@pytest.mark.parametrize(("env", "group"), [({}, "4711"), ({"DOCKER_GID": "4712"}, "4712")])
def test_folders_step_down_takes_group_of_socket_and_keeps_nothing_else(
    tmp_path: Path, env: dict[str, str], group: str
) -> None:
    socket = tmp_path / "docker.sock"
    socket.touch()
    os.chown(socket, 0, 4711)
    done = step_down("socket", str(socket), "sh", "-c", "id -u; id -G; grep CapEff /proc/self/status", **env)
    assert done.stdout.split() == ["10001", "10001", group, "CapEff:", "0000000000000000"]


def test_folders_step_down_works_as_folders_owner_and_hands_down_token(tmp_path: Path) -> None:
    token = tmp_path / "gateway.token"
    token.write_text("mao_own\n")
    token.chmod(0o600)
    os.chown(token, NODE, NODE)
    work = tmp_path / "work"
    work.mkdir()
    os.chown(work, SOMEBODY, NOBODY)
    shown = ("folder", str(work), "sh", "-c", "id -u; id -G; echo $MAO_NODE_TOKEN")
    file = {"MAO_GATEWAY_TOKEN_FILE": str(token)}
    assert step_down(*shown, **file).stdout.split() == [str(SOMEBODY), str(NOBODY), "10001:mao_own"]
    assert "mao_own" not in step_down(*shown, **file, MAO_TOKENS_FILE="/etc/mao/tokens/tokens").stdout
    assert step_down(*shown, MAO_GATEWAY_TOKEN_FILE=str(tmp_path / "none")).returncode == 0


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ((), 2),
        (("elsewhere", "/", "true"), 2),
        (("socket", "/no/socket", "true"), 1),
        (("folder", "/tmp", "/no"), 1),
    ],
)
def test_folders_step_down_says_what_it_cannot_do(words: tuple[str, ...], code: int) -> None:
    done = step_down(*words)
    assert done.returncode == code
    assert "step_down" in done.stderr
