"""Decisions about rounds as tables, without a store or a repository."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mao_datamgmt.rounds.decide import MAX_ATTEMPTS, MAX_TICK_AGE, NO_QUORUM, decide
from mao_datamgmt.rounds.view import (
    AttestRound,
    CloseRound,
    DeliverRound,
    OpenRound,
    RecheckRound,
    RoundDecision,
    RoundView,
    UpdateRound,
)
from mao_shared import keys
from mao_shared.models import Abstention, Announcement, Attestation, Dataset, Round, VoteDefinition, round_id
from mao_shared.store import Check, Stored

TICK = datetime(2026, 11, 24, 12, tzinfo=UTC)
DEADLINE = TICK + timedelta(minutes=10)
ID = round_id(TICK, "crawl", "collect")
NODES = ["a", "b", "c"]
X, Y, Z = "1" * 40, "2" * 40, "3" * 40
OF: dict[str, Any] = {"dataset": "data", "pipeline": "crawl", "step": "collect"}


def a_round(**changes: Any) -> Round:
    fields = {"id": ID, "tick": TICK, "nodes": NODES, "opened_by": "a", "opened_at": TICK, **OF, **changes}
    return Round(**{"deadline": DEADLINE, "definition": VoteDefinition(deadline=600), **fields})


def closed(**changes: Any) -> Round:
    return a_round(
        phase="closed",
        closed_by="a",
        closed_at=TICK,
        commits=dict.fromkeys(NODES, X),
        **changes,
    )


def said(node: str, commit: str | None, revision: int = 5, **changes: Any) -> Stored[Announcement]:
    why = None if commit else Abstention(reason="failed", detail="the tool broke")
    fields = {"round": ID, "tick": TICK, "run": node, "announced_at": TICK, "commit": commit, "abstains": why}
    return Stored(Announcement(**{**OF, **fields, **changes}), revision)


def attests(commit: str | None, missing: str = "", **changes: Any) -> Stored[Attestation]:
    fields = {"dataset": "data", "round": ID, "commit": commit, "tree": commit, "missing": missing}
    return Stored(Attestation(**{**fields, "attested_at": TICK, **changes}), 7)


def seen(
    *rounds: Round,
    announced: dict[str, Stored[Announcement]] | None = None,
    attested: dict[str, Stored[Attestation]] | None = None,
    after: float = 0,
    **changes: Any,
) -> RoundView:
    fields: dict[str, Any] = {
        "node": "a",
        "now": TICK + timedelta(seconds=after),
        "grace_until": TICK,
        "dataset": Dataset(name="data", master="/x", nodes=NODES, vote=VoteDefinition(deadline=600)),
        "definitions": [VoteDefinition(deadline=600)],
        "rounds": {round_.id: Stored(round_, 9) for round_ in rounds},
        "announced": {ID: announced or {}},
        "attested": {ID: attested or {}},
    }
    return RoundView(**{**fields, **changes})


def only(decision: RoundDecision) -> Any:
    [action] = decision.actions
    return action


def ended(decision: RoundDecision) -> str:
    action = only(decision)
    assert isinstance(action, UpdateRound)
    assert action.round.phase == "undecided"
    assert action.round.reason is not None
    return action.round.reason


# opening


def test_decide_first_snapshot_opens_round() -> None:
    action = only(decide(seen(announced={"b": said("b", X), "c": said("c", None)})))
    assert isinstance(action, OpenRound)
    assert (action.round.id, action.round.nodes, action.round.opened_by) == (ID, NODES, "a")
    assert action.round.deadline == DEADLINE


@pytest.mark.parametrize(
    "view",
    [
        seen(announced={"b": said("b", None)}),
        seen(announced={"stranger": said("stranger", X)}),
        seen(announced={"b": said("b", X)}, node="stranger"),
        seen(announced={"b": said("b", X)}, dataset=None),
        seen(announced={"b": said("b", X)}, after=MAX_TICK_AGE.total_seconds()),
        seen(announced={"a": said("a", X)}, dataset=Dataset(name="data", master="/x", nodes=["a"])),
    ],
    ids=["abstention", "stranger", "not-mine", "unknown", "old", "alone"],
)
def test_decide_opens_no_round(view: RoundView) -> None:
    assert decide(view) == RoundDecision()


# closing


def test_decide_closes_when_all_have_announced() -> None:
    voices = {"a": said("a", X), "b": said("b", None), "c": said("c", Y)}
    assert isinstance(only(decide(seen(a_round(), announced=voices))), CloseRound)


def test_decide_waits_for_deadline_while_a_node_is_silent() -> None:
    voices = {"a": said("a", X), "b": said("b", Y)}
    assert decide(seen(a_round(), announced=voices)) == RoundDecision(again=600)
    assert isinstance(only(decide(seen(a_round(), announced=voices, after=600))), CloseRound)


def test_decide_deadline_does_not_count_within_grace() -> None:
    voices = {"a": said("a", X)}
    patient = TICK + timedelta(seconds=1030)
    assert decide(seen(a_round(), announced=voices, after=1000, grace_until=patient)) == RoundDecision(
        again=30
    )


def test_decide_too_few_snapshots_undecided_with_checks() -> None:
    voices = {"a": said("a", X, 4), "b": said("b", None, 6)}
    decision = decide(seen(a_round(), announced=voices, after=600))
    assert "1 of 3 nodes submitted a snapshot, 2 are needed" in ended(decision)
    assert "b: failed, the tool broke" in ended(decision)
    assert "c: late" in ended(decision)
    revisions = {"a": 4, "b": 6, "c": 0}
    assert only(decision).checks == [Check(keys.announcement(n, "data", ID), r) for n, r in revisions.items()]


@pytest.mark.parametrize("spoken", [["a", "b"], ["a"]])
def test_decide_earlier_hopeful_round_goes_first(spoken: list[str]) -> None:
    """Two nodes have brought a snapshot, or one has and another is behind."""
    earlier = TICK - timedelta(minutes=1)
    first = a_round(id=round_id(earlier, "crawl", "collect"), tick=earlier)
    before = {node: said(node, X, round=first.id, tick=earlier) for node in spoken}
    now = {"a": said("a", X), "c": said("c", X), **({"b": said("b", X)} if "b" in spoken else {})}
    view = seen(first, a_round(), after=600 if "b" not in spoken else 0)
    view = replace(view, announced={first.id: before, ID: now})
    actions = decide(replace(view, grace_until=TICK + timedelta(hours=1))).actions
    assert actions == []
    over = replace(view, rounds={**view.rounds, first.id: Stored(first.changed(phase="undecided"), 9)})
    assert isinstance(only(decide(over)), CloseRound)


def test_decide_one_closed_round_at_a_time() -> None:
    later = TICK + timedelta(minutes=1)
    other = closed().changed(id=round_id(later, "crawl", "collect"), tick=later)
    voices = {node: said(node, X) for node in NODES}
    decision = decide(seen(a_round(), other, announced=voices))
    assert [type(action) for action in decision.actions] == [AttestRound]


def test_decide_no_dissenters_without_quorum() -> None:
    forged = closed(commit=Y, attested=["b", "c"])
    assert isinstance(only(decide(seen(forged, attested={"a": attests(X), "c": attests(Y)}))), DeliverRound)


# attesting


def test_decide_attests_once() -> None:
    assert isinstance(only(decide(seen(closed()))), AttestRound)
    assert decide(seen(closed(), attested={"a": attests(X)})).actions == []
    assert isinstance(only(decide(seen(closed(attempt=2), attested={"a": attests(X)}))), AttestRound)


def test_decide_retries_computation_after_pause() -> None:
    lacking = {"a": attests(None, "the remote is away")}
    assert decide(seen(closed(), attested=lacking)) == RoundDecision(again=10)
    assert isinstance(only(decide(seen(closed(), attested=lacking, after=10))), AttestRound)


def test_decide_quorum_agrees_and_names_dissenters() -> None:
    votes = {"a": attests(X), "b": attests(X), "c": attests(Y)}
    action = only(decide(seen(closed(), attested=votes)))
    assert (action.round.commit, action.round.attested, action.round.phase) == (X, ["a", "b"], "closed")
    named = only(decide(seen(action.round, attested=votes)))
    assert list(named.round.flagged) == ["c"]
    assert isinstance(only(decide(seen(named.round, attested=votes))), DeliverRound)


def test_decide_names_dissenter_after_decision() -> None:
    done = closed(commit=X, attested=["a", "b"]).changed(phase="decided")
    action = only(decide(seen(done, attested={"a": attests(X), "b": attests(X), "c": attests(Y)})))
    assert list(action.round.flagged) == ["c"]
    assert action.round.phase == "decided"


def test_decide_dissenters_whatever_the_record_says() -> None:
    votes = {"a": attests(X), "b": attests(X), "c": attests(Y)}
    noted = closed(commit=X, attested=["a", "b"], flagged={"c": "noted by others"})
    [(_, caught)] = decide(seen(noted, attested=votes)).violations
    assert list(caught) == ["c"]
    assert decide(seen(closed(flagged={"b": "it lied"}), attested={"a": attests(X)})).violations == []


def test_decide_ignores_attestations_of_strangers_and_earlier_attempts() -> None:
    votes = {"a": attests(X), "stranger": attests(X), "b": attests(X, attempt=1)}
    votes["a"] = attests(X, attempt=2)
    assert decide(seen(closed(attempt=2), attested=votes)).actions == []


def test_decide_all_different_is_undecided_at_once() -> None:
    votes = {"a": attests(X), "b": attests(Y), "c": attests(Z)}
    assert "different results" in ended(decide(seen(closed(), attested=votes)))


def test_decide_no_quorum_of_attestations_in_time() -> None:
    votes = {"a": attests(X)}
    assert decide(seen(closed(), attested=votes, after=1)) == RoundDecision(again=599)
    late = decide(seen(closed(), attested=votes, after=600))
    assert "no attestation from: b, c" in ended(late)
    assert Check(keys.attestation("b", "data", ID), 0) in only(late).checks


def test_decide_waits_longer_for_nodes_that_cannot_compute() -> None:
    votes = {"a": attests(X), "b": attests(None, "the remote is away")}
    assert decide(seen(closed(), attested=votes, after=600)).actions == []
    assert "2 are needed" in ended(decide(seen(closed(), attested=votes, after=2 * 86400)))


def test_decide_no_quorum_of_snapshots_when_enough_say_so() -> None:
    votes = {node: attests(None, NO_QUORUM + "1 of 3") for node in ("b", "c")}
    assert ended(decide(seen(closed(), attested=votes))).startswith(NO_QUORUM)


def test_decide_ends_after_max_attempts() -> None:
    assert "without an agreement" in ended(decide(seen(closed(attempt=MAX_ATTEMPTS + 1))))


def test_decide_node_that_does_not_vote_does_nothing() -> None:
    everything = seen(closed(), node="stranger", announced={"b": said("b", X)})
    assert decide(everything) == RoundDecision()


# what any federation member can write into a round

FORGED = [
    a_round(nodes=["a", "evil"]),
    a_round(definition=VoteDefinition(quorum="UNTIL", quorum_percentage=0, deadline=600)),
    a_round(deadline=datetime(2999, 1, 1, tzinfo=UTC)),
    a_round(opened_at=datetime(2999, 1, 1, tzinfo=UTC), deadline=datetime(2999, 1, 1, tzinfo=UTC)),
    closed(nodes=["a", "evil"]),
    a_round(phase="closed", closed_by="evil", closed_at=datetime(2999, 1, 1, tzinfo=UTC)),
    a_round().changed(nodes=["a", "b", "c", "c"]),
]


@pytest.mark.parametrize("forged", FORGED)
def test_decide_resets_forged_round(forged: Round) -> None:
    action = only(decide(seen(forged, announced={"b": said("b", X)})))
    assert isinstance(action, UpdateRound)
    right = action.round
    assert (right.phase, right.nodes, right.definition.deadline) == ("open", NODES, 600)
    assert (right.tick, right.attempt) == (TICK, 2)
    assert right.deadline <= TICK + timedelta(seconds=600)
    assert decide(seen(right, announced={"b": said("b", X)})).actions == []


def test_decide_round_of_others_blocks_nothing() -> None:
    earlier = TICK - timedelta(hours=1)
    theirs = a_round(id=round_id(earlier, "crawl", "x"), step="x", tick=earlier, nodes=["evil"], commit=X)
    theirs = theirs.model_copy(update={"phase": "closed"})
    action = only(decide(seen(theirs, a_round(), announced={n: said(n, X) for n in NODES})))
    assert isinstance(action, CloseRound)
    assert action.stored.record.id == ID


def test_decide_most_nodes_must_attest_whatever_the_quorum() -> None:
    loose = VoteDefinition(quorum="UNTIL", quorum_percentage=1, deadline=600)
    dataset = Dataset(name="data", master="/x", nodes=NODES, vote=loose)
    round_ = closed(definition=loose)
    decision = decide(seen(round_, attested={"b": attests(X), "a": attests(Y)}, dataset=dataset))
    assert not [
        action for action in decision.actions if isinstance(action, UpdateRound) and action.round.commit
    ]


def test_decide_publishes_missing_agreement() -> None:
    changed = VoteDefinition(collation="MEAN", deadline=600)
    dataset = Dataset(name="data", master="/x", nodes=NODES, vote=changed)
    action = only(decide(seen(closed(definition=changed), dataset=dataset)))
    assert isinstance(action, AttestRound)
    assert not action.agreed


def test_decide_lateness_by_own_clock() -> None:
    voices = {"a": said("a", X), "c": said("c", X)}
    heard = {ID: TICK + timedelta(seconds=2)}
    early = a_round(opened_at=TICK - timedelta(hours=1), deadline=TICK - timedelta(minutes=50))
    assert decide(seen(early, announced=voices, opened_at=heard, after=5)) == RoundDecision(again=597)
    shut = closed(abstained={"b": Abstention(reason="late")}).changed(commits={"a": X, "c": X})
    at = {ID: TICK + timedelta(seconds=100)}
    action = only(decide(seen(shut, announced=voices, opened_at=heard, closed_at=at, after=100)))
    assert isinstance(action, UpdateRound)
    assert (action.round.phase, action.round.attempt, action.round.commits) == ("open", 2, {})
    assert "before its deadline" in action.fault
    in_time = {ID: TICK + timedelta(seconds=599)}
    view = seen(shut, announced=voices, opened_at=heard, closed_at=in_time, after=599)
    assert isinstance(only(decide(view)), AttestRound)


def test_decide_ignores_times_in_the_record() -> None:
    ago = TICK - timedelta(days=9000)
    view = seen(
        closed(opened_at=ago, deadline=ago).changed(closed_at=ago),
        attested={"a": attests(X)},
        closed_at={ID: TICK},
        after=1,
    )
    assert decide(view) == RoundDecision(again=599)


def test_decide_most_nodes_must_report_no_quorum() -> None:
    loose = VoteDefinition(quorum="UNTIL", quorum_percentage=1, deadline=600)
    dataset = Dataset(name="data", master="/x", nodes=NODES, vote=loose)
    votes = {"a": attests(X), "c": attests(None, NO_QUORUM + "so I say")}
    view = seen(closed(definition=loose), attested=votes, dataset=dataset, definitions=[loose])
    assert decide(view).actions == []


def test_decide_invented_past_tick_blocks_nothing() -> None:
    earlier = TICK - timedelta(days=3)
    old = a_round(id=round_id(earlier, "crawl", "collect"), tick=earlier)
    old = old.changed(deadline=DEADLINE + timedelta(minutes=1), opened_at=TICK + timedelta(minutes=1))
    view = seen(old, a_round(), announced={node: said(node, X) for node in NODES})
    invented = {"c": said("c", X, round=old.id, tick=earlier)}
    action = only(decide(replace(view, announced={**view.announced, old.id: invented})))
    assert isinstance(action, CloseRound)
    assert action.stored.record.id == ID


@pytest.mark.parametrize("nodes", [NODES, ["a", "c", "d"]])
def test_decide_rechecks_unattested_decision(nodes: list[str]) -> None:
    forged = closed(commit=Y, attested=nodes).changed(phase="decided", nodes=nodes)
    voices = {node: said(node, X) for node in NODES}
    votes = {node: attests(Y) for node in nodes[2:]}
    assert isinstance(only(decide(seen(forged, announced=voices, attested=votes))), RecheckRound)
    assert decide(seen(forged, announced=voices, attested=votes, after=2 * 86400)).actions == []
    honest = closed(commit=X, attested=["a", "b"]).changed(phase="decided")
    votes = {"a": attests(X), "b": attests(X)}
    assert decide(seen(honest, announced=voices, attested=votes)).actions == []
    after = {**voices, "d": said("d", Y, revision=99)}  # a new member, with statements about ended rounds
    dataset = Dataset(name="data", master="/x", nodes=[*NODES, "d"], vote=VoteDefinition(deadline=600))
    assert decide(seen(honest, announced=after, attested=votes, dataset=dataset)).actions == []


def two_rounds(
    one: tuple[str, int, dict[str, int]], other: tuple[str, int, dict[str, int]]
) -> tuple[RoundView, str, str]:
    """Rounds that all have been heard of and whose deadlines are over: step, minute of the tick, and at which
    revision nodes brought their snapshots.
    """
    made, announced = [], {}
    for step, minute, brought in (one, other):
        moment = TICK + timedelta(minutes=minute)
        made.append(a_round(id=round_id(moment, "crawl", step), tick=moment, step=step))
        about = {"round": made[-1].id, "tick": moment, "step": step}
        announced[made[-1].id] = {node: said(node, X, at, **about) for node, at in brought.items()}
    view = replace(seen(*made, after=7200), announced=announced)
    return view, made[0].id, made[1].id


@pytest.mark.parametrize(
    ("late", "observed"),
    [
        ({"a": 30, "b": 31}, {"a": 20, "b": 21}),
        ({"a": 22, "b": 31}, {"a": 20, "b": 21}),
        ({"a": 10, "b": 31}, {"a": 20, "b": 21}),
        ({"a": 30, "b": 31, "c": 32}, {"a": 20, "b": 29}),
    ],
)
@pytest.mark.parametrize("step", ["sum", "collect"])
def test_decide_first_quorum_goes_first(late: dict[str, int], observed: dict[str, int], step: str) -> None:
    """A step that waited, or was tried again, is later on the branches than what was observed meanwhile."""
    view, _, second = two_rounds((step, 0, late), ("collect", 5, observed))
    action = only(decide(view))
    assert isinstance(action, CloseRound)
    assert action.stored.record.id == second


def test_decide_rounds_do_not_wait_for_each_other() -> None:
    """Whatever the order of announcements and ticks, one round makes progress."""
    ticks = {"x": 0, "y": 5, "z": 3}
    words = {"x": {"a": 40, "b": 41}, "y": {"b": 20, "c": 21}, "z": {"c": 30, "a": 31}}
    made, announced = [], {}
    for step, minute in ticks.items():
        moment = TICK + timedelta(minutes=minute)
        made.append(a_round(id=round_id(moment, "crawl", step), tick=moment, step=step))
        about = {"round": made[-1].id, "tick": moment, "step": step}
        announced[made[-1].id] = {node: said(node, X, at, **about) for node, at in words[step].items()}
    action = only(decide(replace(seen(*made, after=7200), announced=announced)))
    assert isinstance(action, CloseRound)
    assert action.stored.record.step == "y"
