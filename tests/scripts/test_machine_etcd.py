"""The etcd that `machine.sh etcd` installs, and its source.

The machine is that of `test_machine.py`; apt, dpkg and the mirror are fakes, Python and the version check
are real.
"""

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.etcd import version_of

from .test_machine import REPO, Machine, find_program

PIN = "3.5.30"
NEEDED = "python3 mv cp head tr chmod"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Return a Debian machine with an empty mirror and without etcd."""
    made = Machine(tmp_path)
    made.be_user(1000)
    for name in NEEDED.split():
        (made.programs / name).symlink_to(find_program(name))
    made.put("dpkg", "echo amd64")
    made.put("apt-get", mirror("bookworm"))
    made.put("apt-helper", "echo 'E: Failed to fetch: 404  Not Found'; exit 100")
    release(tmp_path, "ID=debian\nVERSION_CODENAME=bookworm\n")
    return made


def release(folder: Path, text: str) -> None:
    (folder / "os-release").write_text(text)


def mirror(suite: str, index: str = "exit 1") -> str:
    """Return an apt-get that lists the machine's sources, and `index` for one of testing."""
    lines = [f"'http://mirror.example/debian/dists/{suite}{part}/InRelease' x 0" for part in ("", "-updates")]
    lines.append(f"'http://mirror.example/debian-security/dists/{suite}-security/InRelease' x 0")
    lines.append("'http://tools.example/apt/dists/cloud/InRelease' x 0")
    return f"""case "$*" in
--print-uris*) cat <<'LINES'
{chr(10).join(lines)}
LINES
exit 0;;
esac
{index}"""


def etcd(version: str, name: str = "etcd") -> str:
    """Return a program that reports this version."""
    return f'echo "{name} Version: {version}"'


PACKAGE = """mkdir -p "$3/usr/bin"
for each in etcd etcdctl; do
    printf '#!/bin/sh\\necho "etcd Version: VERSION"\\n' >"$3/usr/bin/$each"
    chmod 755 "$3/usr/bin/$each"
done"""
BROKEN = """mkdir -p "$3/usr/bin"
printf '#!/bin/sh\\necho "libc.so.6: version GLIBC_2.99 not found"; exit 1\\n' >"$3/usr/bin/etcd"
chmod 755 "$3/usr/bin/etcd" """
FETCHES = 'for file; do case "$file" in *.deb) : >"${file##*/}";; esac; done'


def bring(machine: Machine, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    return machine.run("etcd", env={"OS_RELEASE": str(tmp_path / "os-release")})


@pytest.mark.parametrize("version", ["3.5.30", "3.5.33", "3.6.9", "3.6.16", "3.7.1"])
def test_machine_etcd_on_path_that_is_no_worse_is_used_silently(
    machine: Machine, tmp_path: Path, version: str
) -> None:
    machine.put("etcd", etcd(version))
    machine.put("etcdctl")
    done = bring(machine, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not (machine.var / "etcd").exists()


@pytest.mark.parametrize(
    "version", ["3.4.23", "3.4.42", "3.5.16+dfsg", "3.5.27", "3.5.29", "3.6.8", "gibberish"]
)
def test_machine_etcd_unsafe_system_etcd_is_kept_and_pinned_one_fetched(
    machine: Machine, tmp_path: Path, version: str
) -> None:
    machine.put("etcd", etcd(version))
    machine.put("etcdctl")
    machine.put("apt-helper", FETCHES)
    machine.put("dpkg-deb", PACKAGE.replace("VERSION", PIN))
    done = bring(machine, tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"the etcd on PATH is {version}" in done.stderr
    fetched = machine.calls("apt-helper")
    assert [" SHA256:" in call for call in fetched] == [True, True]
    assert "http://mirror.example/debian/pool/main/e/etcd/etcd-server_3.5.30-2_amd64.deb" in fetched[0]
    assert version_of(str(machine.var / "etcd/bin/etcd")) == PIN
    assert not [call for call in machine.calls("apt-get") if " install" in call or "update -qq" in call]
    again = bring(machine, tmp_path)
    assert (again.returncode, again.stderr, len(machine.calls("apt-helper"))) == (0, "", 2)


@pytest.mark.parametrize(
    ("version", "taken"), [("3.5.33-1", True), ("3.6.16-1", True), ("3.5.27-1", False), ("", False)]
)
def test_machine_etcd_falls_back_to_newest_of_signed_index(
    machine: Machine, tmp_path: Path, version: str, taken: bool
) -> None:
    index = """case "$*" in
*update*) cat sources.list >>"$MAO_VAR_DIR/sources";;
*download*) : >etcd-server_x.deb; : >etcd-client_x.deb;;
esac"""
    machine.put("apt-get", mirror("trixie", index))
    release(tmp_path, "ID=debian\nVERSION_CODENAME=trixie\n")
    machine.put(
        "apt-cache", f"echo 'etcd-server | {version} | http://mirror.example testing/main'" if version else ""
    )
    machine.put("dpkg-deb", PACKAGE.replace("VERSION", version.partition("-")[0]))
    done = bring(machine, tmp_path)
    sources = (machine.var / "sources").read_text()
    keyring = "signed-by=/usr/share/keyrings/debian-archive-keyring.gpg"
    assert sources == f"deb [{keyring}] http://mirror.example/debian/ testing main\n"
    assert all("Dir::State=" in call for call in machine.calls("apt-get") if "update -qq" in call)
    if taken:
        assert done.returncode == 0, done.stderr
        assert f"etcd {version} in place of 3.5.30-2" in done.stderr
        assert version_of(str(machine.var / "etcd/bin/etcd")) == version.partition("-")[0]
    else:
        assert done.returncode == 1
        assert f"its etcd, {version or 'none'}, is no good" in done.stderr
        assert "export MAO_ETCD=/path/to/etcd" in done.stderr


@pytest.mark.parametrize(
    "name", ["ID=ubuntu\nVERSION_CODENAME=noble", "ID=x\nID_LIKE='ubuntu debian'\nUBUNTU_CODENAME=noble"]
)
def test_machine_etcd_ubuntu_asks_its_own_newest_series(machine: Machine, tmp_path: Path, name: str) -> None:
    release(tmp_path, name + "\n")
    machine.put("dpkg-deb")
    machine.put("apt-get", mirror("noble", 'case "$*" in *update*) cat sources.list >&2; exit 1;; esac'))
    done = bring(machine, tmp_path)
    assert done.returncode == 1
    assert "reading the index of devel (http://mirror.example/debian/)" in done.stderr
    assert machine.calls("apt-helper") == []


def test_machine_etcd_that_does_not_run_here_is_not_installed(machine: Machine, tmp_path: Path) -> None:
    machine.put("apt-helper", FETCHES)
    machine.put("dpkg-deb", BROKEN)
    done = bring(machine, tmp_path)
    assert done.returncode == 1
    assert "GLIBC_2.99 not found" in done.stderr
    assert not (machine.var / "etcd").exists()


def test_machine_etcd_another_system_is_told_what_to_put_on_path(machine: Machine, tmp_path: Path) -> None:
    (machine.programs / "apt-get").unlink()
    done = bring(machine, tmp_path)
    assert done.returncode == 1
    assert "not a Debian or Ubuntu machine" in done.stderr
    assert "3.5.33, 3.6.14, 3.7.1 or newer" in done.stderr


def test_machine_etcd_dev_puts_etcd_that_was_fetched_first(tmp_path: Path) -> None:
    programs = tmp_path / "etcd/bin"
    programs.mkdir(parents=True)
    (programs / "etcd").write_text("#!/bin/sh\n")
    (programs / "etcd").chmod(0o755)
    where = ["sh", "-c", "command -v etcd"]
    there = subprocess.run(
        [str(REPO / "dev"), *where],
        env={**os.environ, "MAO_VAR_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert there.stdout.strip() == str(programs / "etcd")
