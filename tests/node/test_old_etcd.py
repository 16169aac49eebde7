"""A native node with an etcd that is unsafe for federations works, but creates none."""

from __future__ import annotations

from pathlib import Path

import pytest

from mao_node.preflight import note_etcd_version
from mao_node.processes import node_processes
from mao_node.settings import NodeSettings
from mao_shared.errors import Conflict
from mao_shared.etcd_version import OUTPUT_FILE, read_output
from tests.support.etcd import unsafe_etcd, version_of
from tests.support.node import NativeNode


@pytest.mark.etcd
@pytest.mark.docker
def test_old_etcd_runs_a_lone_node_but_no_federation(tmp_path: Path) -> None:
    program = unsafe_etcd()
    node = NativeNode(tmp_path, env={"MAO_ETCD": program, "MAO_FEDERATION_ADDRESS": "127.0.0.1"})
    try:
        node.start()
        node.maoctl("dataset", "init", "data")
        refused = node.maoctl("federation", "create", "lab", check=False)
        assert refused.returncode == 5, refused.stderr
        assert f"The etcd of this node is {version_of(program)}" in refused.stderr
        assert "--allow-unsafe-etcd-that-ignores-key-rights" in refused.stderr
        assert node.http.get("/federation").status_code == 404
        assert "data" in node.maoctl("dataset", "get").stdout
        body = {"name": "lab", "allow_unsafe_etcd_that_ignores_key_rights": True}
        made = node.http.post("/federation", json=body, timeout=120)
        assert made.status_code == 201, made.text
        assert "CVE-2026-33343" in made.json()["warnings"][0]
        assert "data" in node.maoctl("dataset", "get").stdout
    finally:
        assert node.stop() == 0


def test_settings_etcd_is_run_by_both_processes(tmp_path: Path) -> None:
    settings = NodeSettings(node="one", data_dir=tmp_path, etcd="/opt/etcd/etcd")
    specs = {spec.name: spec for spec in node_processes(settings, {})}
    assert {specs[name].argv[0] for name in ("etcd", "federation-etcd")} == {"/opt/etcd/etcd"}


def test_settings_etcd_may_be_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = NodeSettings(node="one", data_dir=tmp_path, etcd="opt/etcd")
    assert node_processes(settings, {})[0].argv[0] == str(tmp_path / "opt/etcd")


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("echo 'etcd Version: 3.5.30'; echo 'Git SHA: x'", "3.5.30"),
        ("echo 'etcd Version: 3.6.16'; exit 1", ""),
        ("echo hello", ""),
    ],
)
def test_note_etcd_version_writes_the_programs_output(tmp_path: Path, script: str, expected: str) -> None:
    program, folder = tmp_path / "etcd", tmp_path / "data/federation"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    note_etcd_version(str(program), folder)
    assert read_output((folder / OUTPUT_FILE).read_text()) == expected
    assert folder.stat().st_mode & 0o077 == 0
    program.unlink()  # with etcd elsewhere a node needs none: nothing is known then
    note_etcd_version(str(program), folder)
    assert not (folder / OUTPUT_FILE).exists()


def test_note_etcd_version_names_an_unusable_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Conflict, match="file/federation cannot be used") as refused:
        note_etcd_version("sh", tmp_path / "file/federation")
    assert refused.value.code == "federation-dir-unusable"
