"""Decisions of `machine.sh` and `compose.sh` on other kinds of machines.

Each test has a machine made of a folder of programs, the only folder on PATH: the real ones that the
scripts need, and fakes for those that would change this machine. `calls` returns the calls of a fake.
"""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
REAL = "bash sh env cat cut date dirname flock grep mkdir rm setsid sha256sum sleep tail touch find"


class Machine:
    """A machine with only the given programs."""

    def __init__(self, folder: Path) -> None:
        self.programs = folder / "bin"
        self.var = folder / "var"
        self.calls_file = folder / "calls"
        self.programs.mkdir()
        for name in REAL.split():
            (self.programs / name).symlink_to(find_program(name))

    def put(self, name: str, script: str = "") -> None:
        """Add a program that records its call and then runs `script`."""
        path = self.programs / name
        path.write_text(f'#!/bin/sh\necho "{name} $*" >>{self.calls_file}\n{script}\n')
        path.chmod(0o755)

    def be_user(self, uid: int) -> None:
        self.put("id", f'[ "$1" = -un ] && echo someone || echo {uid}')

    def run(
        self,
        *verbs: str,
        script: str = "machine.sh",
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        checkout: Path = REPO,
    ) -> subprocess.CompletedProcess[str]:
        """Run one of the scripts on this machine, with nothing else in its environment."""
        return subprocess.run(
            [str(checkout / "scripts" / script), *verbs],
            env={"PATH": str(self.programs), "MAO_VAR_DIR": str(self.var), **(env or {})},
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    def calls(self, name: str) -> list[str]:
        """The command lines with which a program was called."""
        lines = self.calls_file.read_text().splitlines() if self.calls_file.exists() else []
        return [line for line in lines if line.split()[0] == name]


def find_program(name: str) -> Path:
    folders = [Path(folder) for folder in (*os.environ["PATH"].split(":"), "/usr/bin", "/bin")]
    return next(folder / name for folder in folders if (folder / name).is_file())


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path)
    made.be_user(1000)
    return made


def test_machine_engine_that_answers_is_used_silently(machine: Machine) -> None:
    machine.put("docker")
    done = machine.run("engine")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert machine.calls("docker") == ["docker info"]


@pytest.mark.parametrize("sudo", [None, "echo 'a password is required' >&2; exit 1"])
def test_machine_without_rights_exact_commands_are_named(machine: Machine, sudo: str | None) -> None:
    machine.put("apt-get")
    if sudo:
        machine.put("sudo", sudo)
    done = machine.run("git-lfs")
    assert done.returncode == 1
    assert "    sudo apt-get update\n" in done.stderr
    assert "    sudo apt-get install -y --no-install-recommends git git-lfs openssh-client\n" in done.stderr
    assert machine.calls("apt-get") == []


def test_machine_browser_that_is_there_is_used(machine: Machine) -> None:
    machine.put("apt-get")
    machine.put("chromium")
    done = machine.run("browser")
    assert (done.returncode, done.stderr, machine.calls("apt-get")) == (0, "", [])


def test_machine_promtool_that_is_there_is_used(machine: Machine) -> None:
    machine.put("apt-get")
    machine.put("promtool")
    done = machine.run("promtool")
    assert (done.returncode, done.stderr, machine.calls("apt-get")) == (0, "", [])


def test_machine_promtool_comes_with_prometheus(machine: Machine) -> None:
    machine.put("apt-get")
    done = machine.run("promtool")
    assert done.returncode == 1
    assert "    sudo apt-get install -y --no-install-recommends prometheus\n" in done.stderr


def test_machine_without_rights_no_engine_is_started(machine: Machine) -> None:
    machine.put("apt-get")
    machine.put("dockerd")
    machine.put("docker", "exit 1")
    done = machine.run("engine")
    assert done.returncode == 1
    assert "    sudo systemctl start docker\n" in done.stderr
    assert "apt-get" not in done.stderr
    assert machine.calls("dockerd") == []


def test_machine_engine_that_refuses_user_is_not_replaced(machine: Machine) -> None:
    machine.put("sudo", '[ "$2" = true ] || exit 1')
    machine.put("docker", "echo 'dial unix /var/run/docker.sock: connect: permission denied' >&2; exit 1")
    done = machine.run("engine")
    assert done.returncode == 1
    assert "sudo usermod -aG docker someone" in done.stderr
    assert machine.calls("sudo") == []


def test_machine_another_system_is_told_what_to_install(machine: Machine) -> None:
    machine.be_user(0)
    done = machine.run("compose")
    assert done.returncode == 1
    assert "not a Debian or Ubuntu machine" in done.stderr
    assert "docker-compose" in done.stderr


def test_machine_failed_installation_shows_why(machine: Machine) -> None:
    machine.be_user(0)
    machine.put("apt-get", '[ "$1" = update ] || { echo "E: Unable to locate package"; exit 100; }')
    done = machine.run("compose")
    assert done.returncode == 1
    assert "E: Unable to locate package" in done.stderr


def test_machine_installs_once_and_prints_compose_command(machine: Machine) -> None:
    machine.be_user(0)
    installed = machine.programs / "docker-compose"
    machine.put("apt-get", f'[ "$1" = update ] || ln -s /bin/true {installed}')
    (machine.programs / "ln").symlink_to(find_program("ln"))
    first, second = machine.run("compose"), machine.run("compose")
    assert (first.returncode, first.stdout) == (0, "docker-compose\n")
    assert "because Docker Compose is missing" in first.stderr
    assert (second.returncode, second.stdout, second.stderr) == (0, "docker-compose\n", "")


def test_machine_compose_v2_is_preferred(machine: Machine) -> None:
    machine.put("docker")
    machine.put("docker-compose")
    assert machine.run("compose").stdout == "docker compose\n"


def test_machine_old_python_is_refused_with_next_step(machine: Machine) -> None:
    machine.put("python3", '[ "$1" = --version ] && echo Python 3.9.2; exit 1')
    done = machine.run("venv", env={"MAO_VENV": str(machine.var / "none")})
    assert done.returncode == 1
    assert "needs Python 3.11 or later; python3 is Python 3.9.2" in done.stderr


def test_machine_only_engine_of_ours_is_stopped(machine: Machine) -> None:
    machine.var.mkdir()
    (machine.var / "dockerd.pid").write_text(str(os.getpid()))
    done = machine.run("engine-stop")
    assert (done.returncode, done.stderr) == (0, "")
    assert not (machine.var / "dockerd.pid").exists()


def test_machine_unknown_verb_is_usage_error(machine: Machine) -> None:
    done = machine.run("frobnicate")
    assert done.returncode == 2
    assert "Usage:" in done.stderr


def test_machine_compose_is_told_what_only_this_machine_knows(machine: Machine, tmp_path: Path) -> None:
    for name in ("head", "sed", "sort", "tr", "uname", "wc"):
        (machine.programs / name).symlink_to(find_program(name))
    machine.put(
        "docker",
        '[ "$2" = ps ] && echo "$COMPOSE_PROJECT_NAME $MAO_NODE"; tr "\\0" "\\n" </proc/$$/environ; true',
    )
    done = machine.run("ps", script="compose.sh", env={"MAO_NODE": "zurich"}, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    told = done.stdout.splitlines()
    assert "mao zurich" in told
    assert f"PWD={tmp_path}" in told  # the client works where the script is called


def test_machine_compose_goes_on_with_node_that_plain_compose_started_here(machine: Machine) -> None:
    for name in ("head", "sed", "sort", "tr", "uname", "wc"):
        (machine.programs / name).symlink_to(find_program(name))
    machine.put(
        "docker",
        f"""
[ "$1" = ps ] && case "$*" in *working_dir={REPO}*service=gateway*) echo orchestrator;; esac
[ "$2" = ps ] && echo "$COMPOSE_PROJECT_NAME"; true""",
    )
    assert machine.run("ps", script="compose.sh").stdout == "orchestrator\n"
    assert machine.run("ps", script="compose.sh", env={"COMPOSE_PROJECT_NAME": "x"}).stdout == "x\n"


@pytest.mark.parametrize(
    ("volumes", "project"),
    [("here_mao-etcd", "here"), ("here_mao-etcd mao_mao-etcd", "mao"), ("mao_mao-etcd", "mao"), ("", "mao")],
)
def test_machine_compose_goes_on_with_data_of_plain_compose_that_is_down(
    machine: Machine, tmp_path: Path, volumes: str, project: str
) -> None:
    for name in ("head", "sed", "sort", "tr", "uname", "wc"):
        (machine.programs / name).symlink_to(find_program(name))
    machine.put(
        "docker",
        f"""
[ "$1 $2" = "volume inspect" ] && case " {volumes} " in *" $3 "*) exit 0;; *) exit 1;; esac
[ "$2" = ps ] && echo "$COMPOSE_PROJECT_NAME"; true""",
    )
    checkout = tmp_path / "He.re"
    shutil.copytree(REPO / "scripts", checkout / "scripts")
    assert machine.run("ps", script="compose.sh", checkout=checkout).stdout == f"{project}\n"


def test_machine_compose_takes_seeds_names(machine: Machine) -> None:
    for name in ("head", "sed", "sort", "tr", "uname", "wc"):
        (machine.programs / name).symlink_to(find_program(name))
    machine.put("docker", '[ "$2" = ps ] && echo "$MAO_NODE $MAO_ETCD_ENDPOINTS $hostdir"; true')
    seed = {"workuser": "bern", "etcdhost": "etcd.example", "port": "2400", "hostdir": "/srv/mao"}
    done = machine.run("ps", script="compose.sh", env=seed)
    assert (done.returncode, done.stdout) == (0, "bern etcd.example:2400 /srv/mao\n")
    seed["etcdhost"] = "one:2379,two:2379"
    done = machine.run("ps", script="compose.sh", env=seed)
    assert done.stdout == "bern one:2379,two:2379 /srv/mao\n"


@pytest.mark.parametrize(
    ("made_with", "name"),
    [
        ("MAO_NODE=bern\nworkuser=\nPATH=/bin", "bern"),
        ("MAO_NODE=\nworkuser=zurich", "zurich"),
        ("MAO_NODE=\nworkuser=", "node"),  # as a plain compose names a node for which nothing is set
    ],
)
def test_machine_node_keeps_name_that_it_was_started_with(
    machine: Machine, made_with: str, name: str
) -> None:
    for program in ("head", "sed", "sort", "tr", "uname", "wc"):
        (machine.programs / program).symlink_to(find_program(program))
    machine.put(
        "docker",
        f"""
case "$*" in *--quiet*project=mao*service=gateway*) echo 4f4f;; inspect*4f4f) echo "{made_with}";; esac
[ "$2" = ps ] && echo "$MAO_NODE"; true""",
    )
    assert machine.run("ps", script="compose.sh").stdout == f"{name}\n"
    assert machine.run("ps", script="compose.sh", env={"MAO_NODE": "chosen"}).stdout == "chosen\n"


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("zurich            # the node's name", "zurich"),
        ("'zurich'", "zurich"),
        ('"zurich" # quoted', "zurich"),
        ("zurich\r", "zurich"),
        (" zurich  ", "zurich"),
        ("zu#rich", "zu#rich"),
        ("a\nworkuser=zurich", "zurich"),
    ],
)
def test_machine_compose_reads_env_files_as_compose_does(
    machine: Machine, tmp_path: Path, written: str, read: str
) -> None:
    for name in ("head", "sed", "sort", "tr", "uname", "wc"):
        (machine.programs / name).symlink_to(find_program(name))
    machine.put("docker", '[ "$2" = ps ] && echo "$MAO_NODE"; true')
    checkout = tmp_path / "checkout"
    shutil.copytree(REPO / "scripts", checkout / "scripts")
    (checkout / ".env").write_text(f"export gitusername=x\nworkuser={written}\nworkusers=other\n")
    assert machine.run("ps", script="compose.sh", checkout=checkout).stdout == f"{read}\n"


def test_machine_make_up_keeps_own_choices_only(machine: Machine, tmp_path: Path) -> None:
    names = ("basename", "head", "python3", "sed", "sort", "stat", "tr", "uname", "wc")
    for name in names:
        (machine.programs / name).symlink_to(find_program(name))
    machine.put("docker")
    checkout = tmp_path / "checkout"
    shutil.copytree(REPO / "scripts", checkout / "scripts")
    script = checkout / "scripts/compose.sh"
    text = script.read_text().replace('main "$@"', "found=$(not_chosen); prepare; keep $found; client")
    script.write_text(text)
    kept = checkout / ".env"

    kept.write_text("MAO_NODE=bern\ngitusername=Ada")  # without an end of line
    first = machine.run(script="compose.sh", checkout=checkout)
    assert kept.read_text() == "MAO_NODE=bern\ngitusername=Ada\nCOMPOSE_PROJECT_NAME=mao\n"
    assert first.stdout == "docker compose run --rm maoctl\n"
    machine.run(script="compose.sh", checkout=checkout)
    assert kept.read_text().count("COMPOSE_PROJECT_NAME") == 1

    kept.unlink()
    given = {"COMPOSE_PROJECT_NAME": "two", "MAO_NODE": "basel", "MAO_GATEWAY_PORT": "8180"}
    second = machine.run(script="compose.sh", checkout=checkout, env=given)
    assert not kept.exists()
    assert second.stdout == "COMPOSE_PROJECT_NAME=two MAO_GATEWAY_PORT=8180 docker compose run --rm maoctl\n"
