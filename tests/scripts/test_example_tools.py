"""The example tools, built like `make demo` and run with the runner's hardening."""

import csv
import math
import os
import statistics
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from mao_runner.drivers.docker import DockerDriver
from mao_shared.models.tool import CheckRequest
from tests.runner.harness import Bench
from tests.support.docker import Engine
from tests.support.waiting import eventually

REPO = Path(__file__).resolve().parents[2]
OWNER = os.getuid() or 10001
HARDENED = [
    *("--rm", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--network", "none"),
    *("--security-opt", "no-new-privileges", "--user", str(OWNER), "--env", "HOME=/tmp"),
]
METRICS = ["hash_mb_s", "memory_mb_s", "disk_mb_s", "fsync_ms", "cpus", "load1"]
COLUMNS = ["scheduled_for", "measured_at", "node", "run", *METRICS]

pytestmark = pytest.mark.docker


def command(*words: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end and capture its output."""
    return subprocess.run(words, capture_output=True, text=True, timeout=110, check=False)


@pytest.fixture(scope="module")
def images() -> dict[str, str]:
    """Build the tool images by the script, and return them by name."""
    built = command(str(REPO / "scripts/machine.sh"), "tool-images")
    assert built.returncode == 0, built.stderr
    return {image.split("/")[1].split(":")[0]: image for image in built.stdout.split()}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Create an empty folder owned by the tools' user."""
    return make_folder(tmp_path / "data")


def make_folder(path: Path) -> Path:
    path.mkdir()
    if os.getuid() == 0:
        os.chown(path, OWNER, OWNER)
    return path


def run_tool(
    image: str, data: Path, input_: Path | None = None, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    options = ["--volume", f"{data}:/usr/src/app/data"]
    if input_ is not None:
        options += ["--volume", f"{input_}:/usr/src/app/input:ro"]
    for name, value in (env or {}).items():
        options += ["--env", f"{name}={value}"]
    return command("docker", "run", *HARDENED, *options, image)


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file, strict=True))


def write_performance(folder: Path, rows: list[str]) -> Path:
    folder.mkdir()
    lines = [",".join(COLUMNS), *rows]
    (folder / "performance.csv").write_text("".join(f"{line}\n" for line in lines))
    return folder


def a_year_of_rows() -> list[str]:
    """Generate measurements of two nodes, with gaps and values that sort differently as text."""
    return [
        f"2031-01-{1 + i % 28:02}T00:00:00Z,2031-01-01T00:00:01Z,node{i % 2},r{i},"
        f"{(i * 7919) % 1000 / 10:.1f},{9000 + (i * 31) % 2000}.5,{'' if i % 5 == 0 else i},"
        f"0.0{i % 10},2,{i % 3}.25"
        for i in range(365)
    ]


def expected_summary(rows: list[dict[str, str]], metric: str) -> tuple[float, ...]:
    values = [float(row[metric]) for row in rows if row[metric]]
    mean = math.fsum(values) / len(values)
    return (len(values), min(values), statistics.median(values), mean, max(values), values[-1])


def test_example_tools_measures_and_appends_row_run(images: dict[str, str], data: Path) -> None:
    env = {"MAO_SCHEDULED_FOR": "2031-05-01T10:00:00+02:00", "MAO_NODE": "zurich", "MAO_RUN_ID": "r-1"}
    for _ in range(2):
        done = run_tool(images["system-performance"], data, env=env)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
    rows = read_rows(data / "performance.csv")
    assert [list(row) for row in rows] == [COLUMNS] * 2
    assert [(row["scheduled_for"], row["node"], row["run"]) for row in rows] == [tuple(env.values())] * 2
    assert all(float(row[metric]) > 0 for row in rows for metric in METRICS if metric != "load1")
    assert [path.name for path in data.iterdir()] == ["performance.csv"]


def test_example_tools_measures_without_any_setting(images: dict[str, str], data: Path) -> None:
    done = run_tool(images["system-performance"], data)
    assert done.returncode == 0, done.stderr
    (row,) = read_rows(data / "performance.csv")
    assert row["scheduled_for"] == row["measured_at"]
    assert row["node"]
    assert row["run"] == "none"


def test_example_tools_value_from_outside_cannot_break_csv(images: dict[str, str], data: Path) -> None:
    done = run_tool(images["system-performance"], data, env={"MAO_NODE": 'a,"b\nc'})
    assert done.returncode == 0, done.stderr
    assert [row["node"] for row in read_rows(data / "performance.csv")] == ["a__b_c"]


def test_example_tools_leaves_csv_with_other_columns_alone(images: dict[str, str], data: Path) -> None:
    (data / "performance.csv").write_text("a,b\n1,2\n")
    done = run_tool(images["system-performance"], data)
    assert done.returncode == 1
    assert "other columns" in done.stderr
    assert (data / "performance.csv").read_text() == "a,b\n1,2\n"


def test_example_tools_summary_equals_independent_computation(
    images: dict[str, str], data: Path, tmp_path: Path
) -> None:
    input_ = write_performance(tmp_path / "input", a_year_of_rows())
    done = run_tool(images["performance-summary"], data, input_)
    assert done.returncode == 0, done.stderr
    rows = read_rows(input_ / "performance.csv")
    summary = read_rows(data / "summary.csv")
    assert [line["metric"] for line in summary] == METRICS
    for line in summary:
        found = tuple(float(line[name]) for name in ("n", "min", "median", "mean", "max", "last"))
        assert found == pytest.approx(expected_summary(rows, line["metric"]), abs=0.00051)


def test_example_tools_summary_is_same_bytes_again(
    images: dict[str, str], data: Path, tmp_path: Path
) -> None:
    input_ = write_performance(tmp_path / "input", a_year_of_rows())
    results = []
    for _ in range(2):
        assert run_tool(images["performance-summary"], data, input_).returncode == 0
        results.append({path.name: path.read_bytes() for path in sorted(data.iterdir())})
    assert list(results[0]) == ["summary.csv", "summary.md"]
    assert results[0] == results[1]
    assert b"365 measurements of node0, node1, from 2031-01-01T00:00:00Z" in results[0]["summary.md"]


def test_example_tools_summary_of_what_was_really_measured(
    images: dict[str, str], data: Path, tmp_path: Path
) -> None:
    assert run_tool(images["system-performance"], data).returncode == 0
    summary = make_folder(tmp_path / "summary")
    assert run_tool(images["performance-summary"], summary, data).returncode == 0
    measured = read_rows(data / "performance.csv")[0]
    for line in read_rows(summary / "summary.csv"):
        assert line["n"] == "1"
        values = {float(line[name]) for name in ("min", "median", "mean", "max", "last")}
        assert values == {float(measured[line["metric"]])}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["t,t,n,r,1,1,1,1,1"], "line 2: 9 fields where the header has 10"),
        (["t,t,n,r,1,1,1,1,1,1", "t,t,n,r,1,1,x,1,1,1"], 'line 3: "x" is no number'),
    ],
)
def test_example_tools_summary_names_line_it_cannot_read(
    images: dict[str, str], data: Path, tmp_path: Path, rows: list[str], message: str
) -> None:
    done = run_tool(images["performance-summary"], data, write_performance(tmp_path / "input", rows))
    assert done.returncode == 1
    assert message in done.stderr
    assert list(data.iterdir()) == []


def test_example_tools_summary_without_input_says_what_is_missing(
    images: dict[str, str], data: Path, tmp_path: Path
) -> None:
    done = run_tool(images["performance-summary"], data, make_folder(tmp_path / "input"))
    assert done.returncode == 1
    assert "has the step that measures run?" in done.stderr


async def test_example_tools_check_finds_them_compliant(
    images: dict[str, str], tmp_path: Path, engine: Engine
) -> None:
    row = "2026-11-24T07:00:00Z,2026-11-24T07:00:01Z,n,r,1,2,3,4,5,6"
    given = {"performance.csv": "\n".join([",".join(COLUMNS), row, ""])}
    bench = Bench(tmp_path, DockerDriver())
    async with bench.runner() as runner:
        await eventually(lambda: runner.steps is not None)
        for name, input_ in (("system-performance", {}), ("performance-summary", given)):
            request = CheckRequest(image=images[name], input=input_)
            report = await runner.checker.check(request)
            assert report.compliant, report
            assert report.written
    await bench.driver.close()
    assert not engine.containers(mao_installation=(tmp_path / "installation").read_text().strip())
