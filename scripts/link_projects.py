"""Link the project's packages into the virtual environment that runs this script, for container images.

Writes a path file and start scripts, so that an image needs no build backend, and metadata for
`importlib.metadata.version()`. In a checkout, `scripts/machine.sh venv` installs the packages with pip.
"""

import sys
import sysconfig
import tomllib
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parent.parent

START_SCRIPT = """\
#!{python}
import sys

from {module} import {function}

sys.exit({function}())
"""


def find_projects() -> list[Path]:
    """Return the folders of the project's distributions, in a fixed order."""
    candidates = [
        REPO / "shared",
        REPO / "git",
        REPO / "vote",
        REPO / "cli",
        REPO / "node",
        *sorted(REPO.glob("services/*")),
    ]
    return [folder for folder in candidates if (folder / "pyproject.toml").is_file()]


def read_project(folder: Path) -> dict[str, Any]:
    """Return the `[project]` table of a distribution."""
    table: dict[str, Any] = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    return table


def write_if_changed(path: Path, text: str, mode: int = 0o644) -> None:
    """Write a file if its content differs, so that the script is idempotent."""
    if path.is_file() and path.read_text() == text:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def write_metadata(packages: Path, project: dict[str, Any]) -> None:
    """Write a `.dist-info` folder with the name and version of the distribution."""
    name, version = str(project["name"]), str(project["version"])
    stem = name.replace("-", "_")
    for old in packages.glob(f"{stem}-*.dist-info"):
        if old.name != f"{stem}-{version}.dist-info":
            (old / "METADATA").unlink(missing_ok=True)
            old.rmdir()
    text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    write_if_changed(packages / f"{stem}-{version}.dist-info" / "METADATA", text)


def write_start_scripts(scripts: Path, project: dict[str, Any]) -> None:
    """Write one start script for each entry of `[project.scripts]`."""
    for command, target in project.get("scripts", {}).items():
        module, function = str(target).split(":")
        text = START_SCRIPT.format(python=sys.executable, module=module, function=function)
        write_if_changed(scripts / command, text, mode=0o755)


def main() -> None:
    """Link every distribution of the repository into this environment."""
    if sys.prefix == sys.base_prefix:
        sys.exit("link_projects: run this script with the Python of a virtual environment")
    packages = Path(sysconfig.get_path("purelib"))
    folders = find_projects()
    write_if_changed(packages / "mao.pth", "".join(f"{folder}\n" for folder in folders))
    for project in map(read_project, folders):
        write_metadata(packages, project)
        write_start_scripts(Path(sysconfig.get_path("scripts")), project)


if __name__ == "__main__":
    main()
