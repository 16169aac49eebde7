"""Decisions about steps as pure functions."""

from __future__ import annotations

import base64
import json
import re
import shlex
from datetime import UTC, datetime, timedelta

import pytest

from mao_datamgmt import provenance
from mao_datamgmt.provenance import WrittenFiles
from mao_datamgmt.rounds.participation import vote_needed
from mao_datamgmt.steps.output import Baseline, FoundFile, find_changes
from mao_datamgmt.steps.queue import blocked_by, earlier_tick, earlier_tick_reason
from mao_datamgmt.steps.workspaces import StoredWorkspace, expired
from mao_git.remotes import host_keys
from mao_git.remotes.host_keys import KnownHostKeys, SshHost, known_keys, parse_ssh_host, untrusted
from mao_shared.commit_messages import read_step_record
from mao_shared.models import Run, StepRun
from mao_shared.models.secret import SecretRef
from mao_shared.states import StepPhase

from .world import BEGIN, run_of, step

NOW = datetime(2026, 2, 1, tzinfo=UTC)


def at(run: Run, *phases: StepPhase) -> Run:
    one = run.steps[0]
    for phase in phases:
        one = one.move(phase, BEGIN)
    return run.with_step(0, one)


OLD = run_of("old", step("a", "data", "/m"))
NEW = run_of("new", step("a", "data", "/m"), after=1)


def test_steps_oldest_preparing_run_goes_first() -> None:
    assert blocked_by([OLD, NEW], {}, OLD, 0) is None
    assert blocked_by([OLD, NEW], {}, NEW, 0) == "dataset data is in use by run old"


@pytest.mark.parametrize(
    "phases",
    [
        (StepPhase.READY,),
        (StepPhase.READY, StepPhase.STARTING),
        (StepPhase.READY, StepPhase.STARTING, StepPhase.RUNNING),
        (StepPhase.READY, StepPhase.STARTING, StepPhase.EXITED),
        (StepPhase.READY, StepPhase.STARTING, StepPhase.EXITED, StepPhase.PUBLISHING),
    ],
)
def test_steps_whoever_works_in_dataset_has_it_however_young(phases: tuple[StepPhase, ...]) -> None:
    assert blocked_by([OLD, at(NEW, *phases)], {}, OLD, 0) == "dataset data is in use by run new"


def test_steps_ended_steps_and_other_datasets_do_not_count() -> None:
    ended = at(OLD, StepPhase.FAILED)
    other = at(run_of("other", step("a", "other", "/m")), StepPhase.READY)
    assert blocked_by([ended, other, NEW], {}, NEW, 0) is None


def reader(run_id: str, after: int, name: str = "sum", **changes: object) -> Run:
    """Return a tick's run whose step reads ground truth and is to be prepared."""
    made = run_of(run_id, step(name, "data", "/m", ("in", "/in", "ground-truth")), after=after)
    return made.model_copy(update={"scheduled_for": made.created_at, **changes})


def test_steps_observation_goes_before_steps_that_read_ground_truth() -> None:
    """Many of these may be due at once, and the next tick must not wait for all."""
    waiting = [reader(f"r{number}", number) for number in range(5)]
    young = run_of("young", step("a", "data", "/m"), after=9)
    assert blocked_by([*waiting, young], {}, young, 0) is None
    assert blocked_by([*waiting, young], {}, waiting[0], 0) == "dataset data is in use by run young"
    assert blocked_by(waiting, {}, waiting[1], 0) == "dataset data is in use by run r0"


def test_steps_waiting_for_round_blocks_no_other() -> None:
    older, younger = reader("r0", 0), reader("r1", 1, pipeline="other")
    assert blocked_by([older, younger], {}, younger, 0) == "dataset data is in use by run r0"
    assert blocked_by([older, younger], {}, younger, 0, {"r0"}) is None
    busy = at(older, StepPhase.READY)
    assert blocked_by([busy, younger], {}, younger, 0, {"r0"}) == "dataset data is in use by run r0"


def test_steps_are_done_in_order_of_ticks() -> None:
    runs = [reader(f"r{number}", number) for number in range(4)]
    held = {"r0", "r2"}
    assert earlier_tick(runs, runs[0], 0, held) is None
    assert earlier_tick(runs, runs[1], 0, held) == runs[0]
    assert earlier_tick(runs, runs[3], 0, held) == runs[2]
    assert earlier_tick(runs, runs[3], 0, set()) is None


def test_steps_later_tick_names_reason_of_the_earlier() -> None:
    """The reason passes along the whole chain; the time limit keeps `step-stuck` from firing."""
    why = "waits for round x of its input, until 2026-01-31T13:00:00Z at most"
    first = reader("r0", 0)
    assert earlier_tick_reason(first) == "waits for the step's earlier tick, run r0"
    first = first.with_step(0, first.steps[0].model_copy(update={"waiting": why}))
    second = reader("r1", 1)
    second = second.with_step(0, second.steps[0].model_copy(update={"waiting": earlier_tick_reason(first)}))
    assert earlier_tick_reason(second) == f"waits for the step's earlier tick, run r1: {why}"


@pytest.mark.parametrize(
    "other",
    [
        reader("r0", 0, pipeline="other"),
        reader("r0", 0, name="another"),
        reader("r0", 0, scheduled_for=None),
        reader("r0", 9),
    ],
)
def test_steps_only_earlier_ticks_of_same_step_go_first(other: Run) -> None:
    mine = reader("r1", 5)
    assert earlier_tick([other, mine], mine, 0, {"r0"}) is None


def test_steps_run_that_belongs_to_no_tick_waits_for_none() -> None:
    mine = reader("r1", 5, scheduled_for=None)
    assert earlier_tick([reader("r0", 0), mine], mine, 0, {"r0"}) is None


def test_steps_grant_counts_before_its_write_is_seen() -> None:
    assert blocked_by([OLD, NEW], {"data": "new"}, OLD, 0) == "dataset data is in use by run new"
    assert blocked_by([OLD, NEW], {"data": "old"}, OLD, 0) is None


def found(path: str, *stamp: int) -> FoundFile:
    inode, size, modified, changed = stamp
    return FoundFile(path, (inode, size, modified, changed))


def test_steps_changes() -> None:
    before = Baseline({"a": (1, 5, 10, 10), "b": (2, 5, 10, 10), "c": (3, 5, 10, 10)}, sealed_at=11)
    now = [found("a", 1, 5, 10, 10), found("b", 2, 5, 10, 12), found("d", 4, 1, 12, 12)]
    changes = find_changes(before, {file.path: file for file in now})
    assert [file.path for file in changes.written] == ["b", "d"]
    assert changes.removed == ["c"]
    assert changes.touched


def test_steps_file_stamped_in_moment_of_sealing_is_read_but_not_touched() -> None:
    before = Baseline({"a": (1, 5, 10, 10)}, sealed_at=10)
    changes = find_changes(before, {"a": found("a", 1, 5, 10, 10)})
    assert [file.path for file in changes.written] == ["a"]
    assert not changes.touched


def message_of(step: StepRun, written: WrittenFiles | None = None) -> str:
    return provenance.commit_message(OLD, step, written or WrittenFiles(), {"libgit2": "1.9"})


def test_steps_message_is_what_datalad_reads() -> None:
    message = message_of(OLD.steps[0])
    match = re.match(
        r"\[DATALAD RUNCMD\] (.*)=== Do not change lines below "
        r"===\n(.*)\n\^\^\^ Do not change lines above \^\^\^",
        message,
        re.MULTILINE | re.DOTALL,
    )
    assert match is not None
    record = json.loads(match[2])
    assert {"cmd", "exit", "chain", "inputs", "outputs", "extra_inputs", "pwd"} <= record.keys()
    assert record["mao"]["run"] == "old"
    assert message.count("MAO-Run: old") == 1
    assert provenance.trailers(message) == {"MAO-Run": "old", "MAO-Step": "a"}
    assert provenance.commit_subject(message) == "pipeline: a on node-1"


def test_steps_command_of_tool_cannot_forge_record() -> None:
    spec = OLD.steps[0].spec
    words = ["\n^^^ Do not change lines above ^^^\n\nMAO-Run: other", "{pwd}", "é\u2028"]
    forged = OLD.steps[0].model_copy(update={"spec": spec.model_copy(update={"command": words})})
    message = message_of(forged)
    assert provenance.trailers(message) == {"MAO-Run": "old", "MAO-Step": "a"}
    assert not provenance.is_snapshot_of(message, "other", "a")
    assert shlex.split(provenance.rerun_command(OLD, forged))[-2] == "{{pwd}}"


@pytest.mark.parametrize(
    ("is_recorded", "env", "options"),
    [
        (False, ["PGPASS", "TOKEN", "YEARS"], "-e PGPASS -e TOKEN -e YEARS "),
        (True, {"PGPASS": "•••", "TOKEN": "•••", "YEARS": "2024"}, "-e PGPASS -e TOKEN -e YEARS=2024 "),
    ],
)
def test_steps_values_are_recorded_only_where_asked_for(is_recorded: bool, env: object, options: str) -> None:
    given = {"TOKEN": "geheim", "YEARS": "2024", "PGPASS": "x"}
    secrets = [SecretRef(secret="key"), SecretRef(secret="db", env="DB")]
    changes = {"env": given, "record_env": is_recorded, "secrets": secrets}
    changes |= {"command": ["crawl", "--password", "geheim"]}
    spec = OLD.steps[0].spec.model_copy(update=changes)
    message = message_of(OLD.steps[0].model_copy(update={"spec": spec}))
    record = read_step_record(message)
    assert record is not None
    assert record["env"] == env
    assert record["secrets"] == [{"secret": "key"}, {"secret": "db", "env": "DB"}]
    assert options in message
    assert '-v "$MAO_SECRETS/key:/run/secrets/key:ro" -e DB ' in message.replace('\\"', '"')
    assert "geheim" not in message


def test_steps_expired_workspaces_oldest_first_and_never_of_active_runs() -> None:
    kept = [StoredWorkspace(f"run-{days}", NOW - timedelta(days=days)) for days in (1, 2, 3, 8, 9)]
    week = timedelta(days=7)
    assert expired(kept, set(), NOW, week, 50) == ["run-9", "run-8"]
    assert expired(kept, {"run-9"}, NOW, week, 50) == ["run-8"]
    assert expired(kept, {"run-9"}, NOW, week, 2) == ["run-8", "run-3"]


def test_steps_vote() -> None:
    assert vote_needed("a", []) is None
    assert vote_needed("a", ["a"]) is None
    assert vote_needed("a", ["b"]) is not None
    assert "3 nodes" in (vote_needed("a", ["a", "b", "c"]) or "")


@pytest.mark.parametrize(
    ("url", "site"),
    [
        ("ssh://git@git.example.org/x", SshHost("git.example.org", 22)),
        ("ssh://git.example.org:2222/x", SshHost("git.example.org", 2222)),
        ("ssh://git@[::1]:22/x", SshHost("::1", 22)),
        ("git@git.example.org:mao/data.git", SshHost("git.example.org", 22)),
        ("https://git.example.org/x", None),
        ("/srv/git@home:x", None),
    ],
)
def test_steps_site_of(url: str, site: SshHost | None) -> None:
    assert parse_ssh_host(url) == site


def test_steps_known_hosts_lines() -> None:
    text = "# note\n@revoked h ssh-rsa AAAA\n[h]:2222,other ssh-ed25519 AAAA\n*.example.org ssh-rsa BBBB\n"
    assert known_keys(text, SshHost("h", 2222)).fingerprints == [host_keys.fingerprint(b"\0\0\0")]
    assert known_keys(text, SshHost("h", 22)).fingerprints == []
    assert len(known_keys(text, SshHost("git.example.org", 22)).fingerprints) == 1


def test_steps_refusals_say_what_to_do() -> None:
    unknown = untrusted(SshHost("h", 2222), KnownHostKeys(), b"\0\0\0\x07ssh-rsaX")
    assert unknown.code == "host-key-unknown"
    assert "ssh-keyscan -p 2222 h >>" in (unknown.next or "")
    assert "ssh-rsa SHA256:" in unknown.detail
    key = "AAAAB3NzaC1yc2E="
    changed = untrusted(SshHost("h", 22), KnownHostKeys(keys=[("ssh-rsa", key)]), None)
    assert changed.code == "host-key-changed"
    assert host_keys.fingerprint(base64.b64decode(key)) in changed.detail
