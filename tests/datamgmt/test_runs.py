"""Steps in the data manager from preparation to publication, with real git."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mao_shared.host.data_dir import Workspace
from mao_shared.models import CancelRequest, Run
from mao_shared.states import StepPhase
from tests.support.git import bare_repository, file_at, git
from tests.support.waiting import eventually

from .world import BEGIN, NODE, World, run_of, step, working, writes


def one_step(master: Path, run_id: str = "run-1", after: int = 0) -> Run:
    return run_of(run_id, step("collect", "data", master), after=after)


async def test_run_output_reaches_node_branch_and_ground_truth(tmp_path: Path) -> None:
    async with working(tmp_path) as world:
        done = await world.whole(one_step(world.master), writes(a="1", deep__er__b="2"))
        assert done.phase is StepPhase.SUCCEEDED, done.error
        assert git(world.master, "rev-parse", NODE) == done.snapshot
        assert git(world.master, "rev-parse", "ground-truth") == done.ground_truth == done.snapshot
        assert done.pushed
        assert git(world.master, "ls-tree", "-r", "--name-only", NODE).split() == ["a", "deep/er/b"]
        assert git(world.master, "log", "-1", "--format=%an <%ae>", NODE) == f"{NODE} <mao@{NODE}>"
        assert git(world.master, "fsck", "--strict", "--full") == ""
        await eventually(lambda: not world.workspace("run-1").root.parent.exists())


async def test_run_second_run_builds_on_the_first(tmp_path: Path) -> None:
    async with working(tmp_path) as world:

        def append(workspace: Workspace) -> None:
            with (workspace.data / "log").open("a") as file:
                file.write("x")

        for number in range(3):
            done = await world.whole(one_step(world.master, f"run-{number}", number), append)
        assert file_at(world.master, f"{NODE}:log") == "xxx"
        runs = git(
            world.master, "log", "--format=%(trailers:key=MAO-Run,valueonly,separator=%x2C)", NODE
        ).split()
        assert runs == ["run-2", "run-1", "run-0"]
        assert done.base_commit == git(world.master, "rev-parse", f"{NODE}~1")


async def test_run_same_content_again_is_an_observation(tmp_path: Path) -> None:
    async with working(tmp_path) as world:
        await world.whole(one_step(world.master, "run-1"), writes(a="same"))
        done = await world.whole(one_step(world.master, "run-2", 1), writes(a="same"))
        assert done.phase is StepPhase.SUCCEEDED
        assert git(world.master, "rev-parse", f"{NODE}^{{tree}}") == git(
            world.master, "rev-parse", f"{NODE}~1^{{tree}}"
        )


async def test_run_tool_that_touches_nothing_fails(tmp_path: Path) -> None:
    async with working(tmp_path) as world:
        await world.whole(one_step(world.master, "run-1"), writes(a="1"))
        done = await world.whole(one_step(world.master, "run-2", 1), lambda _: None)
        assert done.error is not None
        assert (done.phase, done.error.code, done.error.fault) == (StepPhase.FAILED, "output-missing", "tool")
        assert "maoctl tool check lab/tool:1" in (done.error.next or "")
        assert world.workspace("run-2").data.is_dir()


async def test_run_tool_may_write_nothing_where_the_step_allows_it(tmp_path: Path) -> None:
    async with working(tmp_path) as world:
        run = one_step(world.master)
        spec = run.steps[0].spec.model_copy(update={"allow_empty": True})
        run = run.with_step(0, run.steps[0].model_copy(update={"spec": spec}))
        done = await world.whole(run, lambda _: None)
        assert (done.phase, done.snapshot) == (StepPhase.SUCCEEDED, None)


async def test_run_removed_and_changed_files(tmp_path: Path) -> None:
    async with working(tmp_path) as world:
        await world.whole(one_step(world.master, "run-1"), writes(keep="1", gone="2", d__gone="3", x="4"))

        def tool(workspace: Workspace) -> None:
            (workspace.data / "gone").unlink()
            (workspace.data / "d/gone").unlink()
            (workspace.data / "x").chmod(0o755)

        done = await world.whole(one_step(world.master, "run-2", 1), tool)
        assert done.phase is StepPhase.SUCCEEDED
        listed = git(world.master, "ls-tree", "-r", NODE).splitlines()
        assert [(line.split()[0], line.split()[-1]) for line in listed] == [
            ("100644", "keep"),
            ("100755", "x"),
        ]


async def test_run_second_step_reads_the_first_steps_ground_truth(tmp_path: Path) -> None:
    async with working(tmp_path) as world:
        source = ("data", str(world.master), "ground-truth")
        second = step("sum", "sums", tmp_path / "sums.git", source)
        git(tmp_path, "init", "-q", "--bare", "sums.git")
        run = await world.begin(run_of("run-1", step("collect", "data", world.master), second))
        await world.run_tool(run.id, writes(value="42"))
        await world.phase(run.id, StepPhase.SUCCEEDED)
        await world.change(run.id, lambda r: r.with_step(1, r.steps[1].move(StepPhase.PREPARING, BEGIN)))

        def tool(workspace: Workspace) -> None:
            assert (workspace.input / "value").stat().st_mode & 0o777 == 0o444
            (workspace.data / "sum").write_text((workspace.input / "value").read_text())

        await world.run_tool(run.id, tool, index=1)
        done = await world.phase(run.id, StepPhase.SUCCEEDED, StepPhase.FAILED, index=1)
        assert done.input_commit == git(world.master, "rev-parse", "ground-truth")
        assert git(tmp_path / "sums.git", "show", f"{NODE}:sum") == "42"


async def test_run_missing_input_branch_is_told(tmp_path: Path) -> None:
    async with working(tmp_path) as world:
        git(tmp_path, "init", "-q", "--bare", "in.git")
        source = ("in", str(tmp_path / "in.git"), "ground-truth")
        await world.begin(run_of("run-1", step("sum", "data", world.master, source)))
        failed = await world.phase("run-1", StepPhase.FAILED)
        assert failed.error is not None
        assert (failed.error.code, failed.error.fault) == ("input-missing", "infrastructure")
        assert failed.error.next


@pytest.mark.parametrize("url", ["ext::sh -c id", "--upload-pack=id", "http://127.0.0.1/x", "relative/x"])
async def test_run_remotes_that_run_programs_are_refused(tmp_path: Path, url: str) -> None:
    async with working(tmp_path) as world:
        await world.begin(run_of("run-1", step("collect", "data", url)))
        failed = await world.phase("run-1", StepPhase.FAILED)
        assert failed.error is not None
        assert failed.error.code == "dataset-url-refused"


async def test_run_repository_that_is_not_there(tmp_path: Path) -> None:
    async with working(tmp_path) as world:
        await world.begin(run_of("run-1", step("collect", "data", tmp_path / "none.git")))
        failed = await world.phase("run-1", StepPhase.FAILED)
        assert failed.error is not None
        assert failed.error.code == "dataset-unreachable"


async def test_run_one_step_at_a_time_has_a_dataset_the_oldest_first(tmp_path: Path) -> None:
    async with working(tmp_path) as world:
        for number in range(3):
            await world.begin(one_step(world.master, f"run-{number}", after=number))
        await world.phase("run-0", StepPhase.READY)
        for number in (1, 2):
            run = await world.until(f"run-{number}", lambda run: run.steps[0].waiting is not None)
            assert run.steps[0].phase is StepPhase.PREPARING
            assert "data is in use by run run-0" in (run.steps[0].waiting or "")
        for number in range(3):
            await world.run_tool(f"run-{number}", writes(**{f"f{number}": "x"}))
            done = await world.phase(f"run-{number}", StepPhase.SUCCEEDED)
            assert done.waiting is None
        assert git(world.master, "ls-tree", "--name-only", NODE).split() == ["f0", "f1", "f2"]


async def test_run_other_datasets_do_not_wait(tmp_path: Path) -> None:
    async with working(tmp_path) as world:
        git(tmp_path, "init", "-q", "--bare", "other.git")
        await world.begin(one_step(world.master, "run-0"))
        await world.phase("run-0", StepPhase.READY)
        await world.begin(run_of("run-1", step("collect", "other", tmp_path / "other.git")))
        await world.phase("run-1", StepPhase.READY)


async def test_run_cancel_while_waiting_and_after_exit(tmp_path: Path) -> None:
    def cancelled(run: Run) -> Run:
        return run.model_copy(update={"cancel": CancelRequest(requested_at=BEGIN)})

    async with working(tmp_path) as world:
        await world.begin(one_step(world.master, "run-0"))
        await world.phase("run-0", StepPhase.READY)
        await world.begin(one_step(world.master, "run-1", after=1))
        await world.until("run-1", lambda run: run.steps[0].waiting is not None)
        await world.change("run-1", cancelled)
        await world.phase("run-1", StepPhase.CANCELLED)
        await world.change("run-0", cancelled)
        await world.run_tool("run-0", writes(a="1"))
        await world.phase("run-0", StepPhase.CANCELLED)
        assert git(world.master, "log", "--all") == ""


async def test_run_dataset_of_several_nodes_waits_for_a_vote(tmp_path: Path) -> None:
    async with working(tmp_path) as world:
        await world.takes_part("node-2", "data")
        done = await world.whole(one_step(world.master), writes(a="1"))
        assert done.phase is StepPhase.SUCCEEDED
        assert done.ground_truth is None
        assert done.waiting == "2 nodes vote on ground-truth by ticks; this run has none"
        assert git(world.master, "branch", "--format=%(refname:short)") == NODE


@pytest.mark.parametrize("others", [[], ["node-2"], ["node-2", "node-3"]])
async def test_run_tick_that_is_done_says_nothing_of_the_vote_to_come(
    tmp_path: Path, others: list[str]
) -> None:
    """The message would remain after the vote."""
    async with working(tmp_path) as world:
        for node in [NODE, *others]:
            await world.takes_part(node, "data")
        run = one_step(world.master).model_copy(update={"scheduled_for": BEGIN, "trigger": "schedule"})
        done = await world.whole(run, writes(a="1"))
        assert (done.phase, done.waiting) == (StepPhase.SUCCEEDED, None)


async def two_steps(world: World, tmp_path: Path, **changes: object) -> tuple[Path, Run]:
    """Create a tickless run whose second step reads the first one's dataset; return the second's remote."""
    sums = bare_repository(tmp_path / "sums.git")
    source = ("data", str(world.master), "ground-truth")
    first, second = step("collect", "data", world.master), step("sum", "sums", sums, source)
    spec = first.spec.model_copy(update=changes)
    run = run_of("run-1", first.model_copy(update={"spec": spec}), second)
    await world.begin(run)
    return sums, run


async def hand_over(world: World) -> None:
    """Move on to the second step, as the scheduler does."""
    await world.phase("run-1", StepPhase.SUCCEEDED)
    await world.change("run-1", lambda run: run.with_step(1, run.steps[1].move(StepPhase.PREPARING, BEGIN)))


@pytest.mark.parametrize("remote", ["there", "away"])
@pytest.mark.parametrize("others", [[], ["node-2"], ["node-2", "node-3"]])
async def test_run_first_run_by_hand_reads_what_its_own_step_has_written(
    tmp_path: Path, others: list[str], remote: str
) -> None:
    """On a lone node it is ground truth by then; with other voters there is none before the first round."""
    async with working(tmp_path) as world:
        for node in [NODE, *others]:
            await world.takes_part(node, "data")
        _, run = await two_steps(world, tmp_path)
        await world.phase("run-1", StepPhase.READY)
        if remote == "away":
            world.master.rename(tmp_path / "away.git")
        await world.run_tool("run-1", writes(value="4"))
        await hand_over(world)
        ready = await world.phase("run-1", StepPhase.READY, StepPhase.FAILED, index=1)
        assert ready.error is None
        assert (world.workspace("run-1", 1).input / "value").read_text() == "4"
        done = (await world.get("run-1")).record.steps[0]
        assert ready.input_commit == done.snapshot
        assert ready.spec.input == run.steps[1].spec.input  # the one that the operator agreed to


async def test_run_empty_first_step_gives_the_second_empty_input(tmp_path: Path) -> None:
    async with working(tmp_path) as world:
        await two_steps(world, tmp_path, allow_empty=True)
        await world.run_tool("run-1", writes())
        await hand_over(world)
        ready = await world.phase("run-1", StepPhase.READY, StepPhase.FAILED, index=1)
        assert ready.error is None
        assert list(world.workspace("run-1", 1).input.iterdir()) == []


@pytest.mark.parametrize(("others", "branch"), [([], "ground-truth"), (["node-2"], NODE)])
async def test_run_record_says_which_branch_was_read(tmp_path: Path, others: list[str], branch: str) -> None:
    async with working(tmp_path) as world:
        for node in [NODE, *others]:
            await world.takes_part(node, "data")
        sums, _ = await two_steps(world, tmp_path)
        await world.run_tool("run-1", writes(value="4"))
        await hand_over(world)
        await world.run_tool("run-1", writes(total="4"), 1)
        done = await world.phase("run-1", StepPhase.SUCCEEDED, StepPhase.FAILED, index=1)
        assert done.error is None
        message = git(sums, "log", "-1", "--format=%B", NODE)
        facts = json.loads(message[message.index("{") : message.rindex("}") + 1])
        assert find(facts, "input") == {"dataset": "data", "branch": branch, "commit": done.input_commit}


def find(facts: Any, name: str) -> Any:
    """Return the first object of this name at any depth."""
    if isinstance(facts, dict):
        if isinstance(facts.get(name), dict):
            return facts[name]
        return next((found for fact in facts.values() if (found := find(fact, name))), None)
    return None
