"""`maoctl federation`: messages before and after each command."""

from __future__ import annotations

import pytest

from . import documents
from .conftest import Maoctl
from .gateways import RememberingGateway


def test_invite_shows_a_short_validity_to_the_second(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    made = {"federation": "lab", "node": "node-2", "token": "mao1.x", "fingerprint": "f" * 64}
    path = ("POST", "/federation/invitations")
    gateway.answer(*path, {**made, "expires_at": documents.ago(-90)})
    assert "valid until 2026-01-31 12:01:30 UTC" in maoctl("federation", "invite", "node-2").err
    gateway.answers[path] = [(200, {**made, "expires_at": documents.ago(-86_400)})]
    assert "valid until 2026-02-01 12:00 UTC" in maoctl("federation", "invite", "node-2").err


@pytest.mark.parametrize("valid", ["900d", "10s", "soon"])
def test_invite_rejects_an_invalid_duration(maoctl: Maoctl, gateway: RememberingGateway, valid: str) -> None:
    result = maoctl("federation", "invite", "node-2", "--valid", valid)
    assert (result.code, gateway.calls) == (2, [])
    assert "valid for one minute to 30 days" in result.err


def test_demote_of_a_node_that_is_not_a_core(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    path = ("POST", "/federation/members/node-2/demote")
    gateway.answer(*path, {"node": "node-2", "was_core": False})
    assert (
        maoctl("federation", "demote", "node-2").err
        == "node/node-2 is not a core node; nothing was changed\n"
    )
    gateway.answers[path] = [(200, {"node": "node-2", "was_core": True})]
    assert maoctl("federation", "demote", "node-2").err == "node/node-2 demoted\n"


def test_join_lists_published_records(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    state: dict[str, object] = {"name": "lab", "id": "1", "created_by": "a", "node": "node-1"}
    state |= {"user": "node-1@1", "role": "client", "endpoints": ["h:1"]}
    state |= {"created_at": documents.ago(9), "joined_at": documents.ago(1)}
    gateway.answer("POST", "/federation/join", {**state, "published": ["tool scanner", "dataset data"]})
    said = maoctl("federation", "join", "mao1.x").err
    assert "published to all nodes of lab: tool scanner, dataset data\n" in said


def enrolment(pipeline: str, dataset: str) -> dict[str, object]:
    spec = documents.step()["spec"]
    output = {**spec["output"], "name": dataset}
    times = {"enrolled_at": documents.ago(60), "pipeline_revision": 1}
    return {"pipeline": pipeline, "node": "node-1", "steps": [{**spec, "output": output}], **times}


def leaving(gateway: RememberingGateway) -> None:
    """A node with a pipeline `daily` on a shared dataset, and `alone` on one of its own."""
    gateway.answer("GET", "/status", documents.node_status())
    gateway.answer("DELETE", "/federation", {"federation": "lab", "struck": False, "known": True})
    shared = documents.dataset(nodes=["node-1", "node-2"])
    gateway.keep("/registry/datasets", shared, documents.dataset("mine"))
    gateway.keep("/enrolments", enrolment("daily", "data"), enrolment("alone", "mine"), key="pipeline")
    jobs = [documents.job("d-1"), documents.job("d-2", paused=True), documents.job("a-1", pipeline="alone")]
    gateway.keep("/jobs", *jobs, key="id")


def test_leave_lists_shared_datasets_and_jobs_first(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    leaving(gateway)
    result = maoctl("federation", "leave")
    assert result.code == 2, "nobody was there to answer"
    assert "the remotes of data and vote there" in result.err
    assert [line for line in result.err.splitlines() if "job pause" in line] == ["  maoctl job pause d-1"]
    assert not gateway.called("DELETE", "/federation")


def test_leave_unnoticed_prints_the_command_for_the_others(
    maoctl: Maoctl, gateway: RememberingGateway
) -> None:
    leaving(gateway)
    result = maoctl("federation", "leave", "--force", "--yes")
    assert result.code == 0
    assert "maoctl federation remove node-1\n" in result.err


def test_leave_works_while_the_registry_is_unavailable(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    leaving(gateway)
    gateway.problem("GET", "/registry/datasets", 503, "federation-unavailable")
    assert maoctl("federation", "leave", "--force", "--yes").code == 0


STATE: dict[str, object] = {"name": "lab", "id": "1", "created_by": "a", "node": "node-1", "role": "core"}
STATE |= {
    "user": "node-1@1",
    "endpoints": ["h:1"],
    "created_at": documents.ago(9),
    "joined_at": documents.ago(1),
}
SEAT = {"node": "node-2", "member_id": "1", "client": "h:1", "peer": "h:2"}
ALLOW = "--allow-unsafe-etcd-that-ignores-key-rights"
FIELD = "allow_unsafe_etcd_that_ignores_key_rights"


@pytest.mark.parametrize(
    ("words", "path"),
    [
        (["create", "lab"], "/federation"),
        (["join", "mao1.x"], "/federation/join"),
        (["promote", "node-2"], "/federation/members/node-2/promote"),
    ],
)
def test_federation_prints_warnings_about_etcd(
    maoctl: Maoctl, gateway: RememberingGateway, words: list[str], path: str
) -> None:
    state = {**STATE, "warnings": ["The federation's etcd is 3.5.30 (on a)."]}
    gateway.answer("POST", path, SEAT if "promote" in words else state)
    gateway.answer("GET", "/federation", state)
    assert "warning: The federation's etcd is 3.5.30 (on a).\n" in maoctl("federation", *words).err


@pytest.mark.parametrize("asked", [True, False])
def test_federation_allows_an_unsafe_etcd_by_option_only(
    maoctl: Maoctl, gateway: RememberingGateway, asked: bool
) -> None:
    gateway.answer("GET", "/federation", STATE)
    commands = {"/federation": ["create", "lab"], "/federation/join": ["join", "mao1.x"]}
    for path, words in commands.items():
        gateway.answer("POST", path, STATE)
        assert maoctl("federation", *words, *([ALLOW] if asked else [])).code == 0
        (call,) = gateway.called("POST", path)
        assert call.body.get(FIELD) == (True if asked else None)
    gateway.answer("POST", "/federation/members/node-2/promote", SEAT)
    assert maoctl("federation", "promote", "node-2", *([ALLOW] if asked else [])).code == 0
    (call,) = gateway.called("POST", "/federation/members/node-2/promote")
    assert call.query.get(FIELD) == ("true" if asked else None)
