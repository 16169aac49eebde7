"""The original `docker compose build && docker compose up`, configured only by `.env`.

The SSH folder has the modes ssh requires: readable only by its owner, who is not the node's user.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mao_datamgmt.backup.archive import verify_backup
from tests.support.compose import SeedNode
from tests.support.docker import Engine
from tests.support.git import git
from tests.support.users import NOBODY, SOMEBODY, status_of
from tests.support.waiting import eventually

pytestmark = [pytest.mark.docker, pytest.mark.compose]
SERVICE_USER = "10001"
WRITES = 'echo "$MAO_RUN_ID" >> /usr/src/app/data/runs.csv'


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeedNode]:
    keys = tmp_path_factory.mktemp("ssh")
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(keys / "id_ed25519")], check=True
    )
    keys.chmod(0o700)
    os.chown(keys / "id_ed25519", SOMEBODY, SOMEBODY)
    os.chown(keys, SOMEBODY, SOMEBODY)
    credentials = {"gitusername": "Ada Example", "gitemail": "ada@example.org"}
    place = tmp_path_factory.mktemp("seed")
    node = SeedNode(place, keys, **credentials, MAO_BACKUP_DIR=str(place / "backups"))
    try:
        yield node.start()
    finally:
        node.stop()


def test_plain_compose_node_is_named_after_workuser_and_is_well(node: SeedNode) -> None:
    doctor = json.loads(node.maoctl("doctor", "-o", "json").stdout)
    assert node.http.get("/status").json()["node"] == "zurich"
    assert {check["state"] for check in doctor} == {"ok"}, doctor
    assert "Ada Example <ada@example.org>" in node.maoctl("doctor").stdout


def test_plain_compose_data_directory_is_hosts_folder_and_nodes_own(node: SeedNode) -> None:
    status = node.data.stat()
    assert (status.st_uid, status.st_mode & 0o777) == (10001, 0o700)
    assert (node.data / "installation").is_file()
    assert f"{node.data} now belongs to user 10001" in node.logs("setup")


async def test_plain_compose_periodic_backups_in_host_folder(node: SeedNode) -> None:
    folder = node.data.parent / "backups"  # created by the engine, hence owned by root
    await eventually(lambda: list(folder.glob("mao-zurich-*.tar.gz")), 60)
    [backup] = folder.glob("mao-zurich-*.tar.gz")
    assert (backup.stat().st_uid, backup.stat().st_mode & 0o777) == (10001, 0o600)
    assert verify_backup(backup)[0].node == "zurich"
    assert f"{folder} now belongs to user 10001" in node.logs("setup")


def test_plain_compose_key_that_nodes_user_cannot_read_reaches_data_manager(node: SeedNode) -> None:
    key = (node.ssh_dir / "id_ed25519").read_text()
    assert node.compose("exec", "-T", "datamgmt", "cat", "/etc/mao/ssh/id_ed25519").stdout == key
    assert "id_ed25519" in node.logs("setup")
    assert key.splitlines()[1] not in node.logs("setup")
    for service in ("runner", "gateway", "registry", "scheduler"):
        listed = node.compose("exec", "-T", service, "ls", "/etc/mao", fails=True)
        assert "ssh" not in listed.stdout


def test_plain_compose_no_process_of_node_stays_root(node: SeedNode) -> None:
    for service, item in node.running().items():
        status = Path(f"/proc/{item['State']['Pid']}/status").read_text()
        facts = dict(line.split(":\t", 1) for line in status.splitlines())
        assert facts["Uid"].split() == [SERVICE_USER] * 4, service
        assert int(facts["CapEff"], 16) == int(facts["CapPrm"], 16) == 0, service
    runner = Path(f"/proc/{node.containers()['runner']['State']['Pid']}/status").read_text()
    socket_group = Path("/var/run/docker.sock").stat().st_gid
    assert f"Groups:\t{socket_group}" in runner


def test_plain_compose_main_job_with_nothing_but_client_and_git(
    node: SeedNode, engine: Engine, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    os.chown(work, SOMEBODY, SOMEBODY)
    (work / "tools.yaml").write_text(f"kind: tool\nname: watch\nimage: {engine.build(WRITES)}\nauthor: A\n")

    node.maoctl("apply", "-f", "tools.yaml", folder=work)
    node.maoctl("dataset", "init", "watched")
    node.maoctl("pipeline", "init", "watch", "watched")
    node.maoctl("pipeline", "run", "watch", "--wait")
    node.maoctl("dataset", "download", "watched", "runs.csv", "-o", "taken.csv", folder=work)

    [run] = json.loads(node.maoctl("run", "list", "-o", "json").stdout)
    assert run["phase"] == "succeeded"
    assert run["id"] in (work / "taken.csv").read_text()
    assert (work / "taken.csv").stat().st_uid == SOMEBODY  # the caller, not root
    url = node.maoctl("dataset", "clone-url", "watched").stdout.strip()
    git(tmp_path, "clone", "-q", url, "clone")
    assert run["id"] in (tmp_path / "clone" / "runs.csv").read_text()
    assert "zurich" in git(tmp_path / "clone", "branch", "--remotes")


def test_plain_compose_other_user_is_shown_the_token_command(node: SeedNode) -> None:
    assert status_of(f"{node.url}/status", NOBODY) == 401
    curl = [
        "setpriv",
        f"--reuid={NOBODY}",
        f"--regid={NOBODY}",
        "--clear-groups",
        "curl",
        "-s",
        f"{node.url}/status",
    ]
    told = json.loads(subprocess.run(curl, capture_output=True, text=True, check=True).stdout)["next"]
    command = told.partition("'docker compose ")[2].partition("'")[0]
    token = node.compose(*command.split()).stdout.strip()
    assert status_of(f"{node.url}/status", NOBODY, "-H", f"authorization: Bearer {token}") == 200


def test_plain_compose_foreign_folder_stops_start_with_next_step(node: SeedNode, tmp_path: Path) -> None:
    (tmp_path / "letter").write_text("dear")
    os.chown(tmp_path, SOMEBODY, SOMEBODY)
    image = node.containers()["setup"]["Image"]
    mounts = ["-v", f"{tmp_path}:/var/lib/mao", "-e", f"hostdir={tmp_path}"]
    script = ["python3", "/opt/mao/prepare_folders.py"]
    refused = subprocess.run(
        ["docker", "run", "--rm", "--user", "0:0", *mounts, image, *script], capture_output=True, text=True
    )
    assert refused.returncode == 1
    assert f"{tmp_path} belongs to user {SOMEBODY} and is not empty (there is letter)" in refused.stderr
    assert tmp_path.stat().st_uid == SOMEBODY
