"""A federation member restored from its backup on a new machine keeps its identity and its vote."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

from mao_shared.models import format_time
from tests.support.docker import Engine
from tests.support.federated import SiteNode, lab, until
from tests.support.shared_pipeline import HONEST, SharedPipeline, share
from tests.support.sites import at_sites

pytestmark = at_sites(300)


def decided(shared: SharedPipeline, nodes: list[SiteNode], tick: str) -> dict[str, str]:
    """Run a tick on these nodes until its round is decided; return the snapshot of each node's run."""
    started = [(node, shared.run_tick(node, tick)) for node in nodes]
    runs = {node.name: node.wait_run(run) for node, run in started}
    assert {run["phase"] for run in runs.values()} == {"succeeded"}, runs
    first = shared.lab.nodes[0]
    [found] = until(
        lambda: [r for r in shared.rounds(first).values() if r["tick"] == tick and r["phase"] == "decided"],
        f"the round of {tick} is decided",
    )
    assert not found["abstained"], found
    return {name: run["steps"][0]["snapshot"] for name, run in runs.items()}


def test_restore_member_votes_without_joining_again(engine: Engine, tmp_path: Path) -> None:
    begin = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
    ticks = [format_time(begin + timedelta(minutes=minute)) for minute in range(3)]
    with lab(tmp_path, ("alpha", "beta"), MAO_ROUND_GRACE="1", MAO_PUSH_RETRY="1") as nodes:
        nodes.federate()
        alpha, beta = nodes.nodes
        shared = share(nodes, engine.build(HONEST))
        made = {ticks[0]: decided(shared, [alpha, beta], ticks[0])}
        backup = tmp_path / "backup.tar.gz"
        beta.maoctl("node", "backup", str(backup))
        made[ticks[1]] = decided(shared, [alpha, beta], ticks[1])

        beta.stop()
        beta.remove_containers()
        shutil.rmtree(beta.data_dir)
        beta.maoctl("node", "restore", str(backup))
        beta.restart()

        until(lambda: ticks[1] in {run["scheduled_for"] for run in shared.runs(beta)}, "git was asked")
        runs = {run["scheduled_for"]: run for run in shared.runs(beta)}
        for tick in ticks[:2]:
            assert runs[tick]["phase"] == "succeeded", runs[tick]
            assert runs[tick]["steps"][0]["snapshot"] == made[tick]["beta"]
        decided(shared, [alpha, beta], ticks[2])
        checks = {check["name"]: check["state"] for check in beta.ask("doctor")}
        not_well = {name for name, state in checks.items() if state != "ok"}
        assert not_well <= {"etcd-version"}, checks  # it belongs to the machine
