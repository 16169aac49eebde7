"""Unknown fields stored by a newer version survive every write of this version."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from mao_shared import models
from mao_shared.models import Dataset, Pipeline, Record, Run, StepRun
from mao_shared.models.common import (
    STORED,
    carry_unknown_fields,
    drop_unknown_fields,
    format_time,
    stored_fields,
)
from mao_shared.models.run import Turn
from mao_shared.models.schedule import Forgotten
from mao_shared.states import RunPhase, StepPhase
from mao_shared.store import Records
from mao_shared.store.memory import MemoryStore
from mao_shared.store.records import dump

NOW = "2026-01-31T12:00:00Z"
REF = {"name": "d", "master": "/d.git", "branch": "n"}
VOTE = {"algorithm": "strict-majority"}
METRIC = {"name": "rows", "expression": "rows"}
SPEC = {
    "name": "s",
    "tool": "t",
    "image": {"name": "i:1", "pinned": "sha256:0", "platform": "linux/amd64"},
    "env": {"A": "b"},
    "output": REF,
    "input": REF,
}
STEP = {
    "spec": SPEC,
    "phase": "failed",
    "attempt": 2,
    "times": {"pending": NOW},
    "exit": {"code": 1},
    "error": {"code": "c", "detail": "d", "fault": "tool"},
    "reproduced": {"identical": 1},
}
RUN = {
    "id": "r",
    "pipeline": "p",
    "node": "n",
    "trigger": "manual",
    "phase": "running",
    "created_at": NOW,
    "steps": [STEP, {"spec": SPEC}],
    "cancel": {"requested_at": NOW},
    "covers": {"since": NOW, "until": NOW, "count": 1},
    "error": {"code": "c", "detail": "d", "fault": "tool"},
    "reproduces": {"run": "r", "step": "s", "snapshot": "0"},
}
EXAMPLES: dict[type[Record], dict[str, Any]] = {
    models.Run: RUN,
    models.Schedule: {"id": "p-1", "pipeline": "p", "cron": "* * * * *", "created_at": NOW},
    models.Enrolment: {
        "pipeline": "p",
        "node": "n",
        "steps": [SPEC],
        "pipeline_revision": 1,
        "enrolled_at": NOW,
    },
    models.TickMark: {"decided_until": NOW},
    Forgotten: {"until": NOW},
    Turn: {"run": "r"},
    models.Tool: {"name": "t", "image": "i:1", "limits": {"pids": 10}},
    models.Dataset: {
        "name": "d",
        "master": "/d.git",
        "vote": {"files": [{"path": "*"}], "params": {"error": 0.1}},
    },
    models.Pipeline: {"name": "p", "steps": [{"tool": "t", "dataset": "d", "retry": {"attempts": 2}}]},
    models.Member: {"name": "n", "version": "1", "started_at": NOW},
    models.Signer: {"node": "n", "lines": ["x"]},
    models.Trust: {"node": "n", "since": NOW},
    models.Alarm: {"id": "a", "kind": "spike", "node": "n", "raised_at": NOW, "detail": "d"},
    models.Delivery: {"alarm": "a", "webhook": "w", "created_at": NOW},
    models.Participation: {"dataset": "d", "since": NOW},
    models.PeerNode: {"version": "1", "seen_at": NOW},
    models.SharedDataset: {"dataset": "d", "passed": {"p/s": {"tick": NOW, "ended_at": NOW}}},
}
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=5,
)


def objects(model: type[Record]) -> Iterator[tuple[str | int, ...]]:
    """Return the places in an example that hold a record rather than a plain table."""

    def walk(value: Any, record: Any, place: tuple[str | int, ...]) -> Iterator[tuple[str | int, ...]]:
        if isinstance(record, Record):
            yield place
            for name in value:
                if name in type(record).model_fields:
                    yield from walk(value[name], getattr(record, name), (*place, name))
        elif isinstance(record, list):
            for at, inner in enumerate(record):
                yield from walk(value[at], inner, (*place, at))
        elif isinstance(record, dict):
            for name, inner in record.items():
                yield from walk(value[str(name)], inner, (*place, str(name)))

    yield from walk(EXAMPLES[model], model.model_validate(EXAMPLES[model]), ())


PLACES = [(model, place) for model in EXAMPLES for place in objects(model)]


def with_unknown(model: type[Record], place: tuple[str | int, ...], value: Any) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(json.dumps(EXAMPLES[model]))
    _at(document, place)["of_a_newer_version"] = value
    return document


def _at(document: Any, place: tuple[str | int, ...]) -> Any:
    for step in place:
        document = document[step]
    return document


def test_unknown_fields_examples_reach_every_depth() -> None:
    assert {len(place) for _, place in PLACES} >= {0, 1, 2, 3, 4}
    assert len(PLACES) > 40


@pytest.mark.parametrize(("model", "place"), PLACES)
def test_unknown_field_in_what_is_sent_is_refused(model: type[Record], place: tuple[str | int, ...]) -> None:
    with pytest.raises(ValidationError) as raised:
        model.model_validate(with_unknown(model, place, 1))
    (error,) = raised.value.errors()
    assert error["type"] == "extra_forbidden"
    assert error["loc"] == (*place, "of_a_newer_version")


def test_unknown_argument_of_a_constructor_is_refused() -> None:
    with pytest.raises(ValidationError):
        models.PeerNode.model_validate({"version": "1", "seen_at": NOW, "more": None})


@given(where=st.sampled_from(PLACES), value=VALUES)
@settings(max_examples=150, deadline=None)
def test_unknown_field_is_written_back(where: tuple[type[Record], tuple[str | int, ...]], value: Any) -> None:
    model, place = where
    text = json.dumps(with_unknown(model, place, value))
    record = model.model_validate_json(text, context=STORED)
    for copy in (record, record.model_copy(), record.model_copy(deep=True)):
        assert _at(json.loads(dump(copy)), place)["of_a_newer_version"] == value
    again = model.model_validate_json(dump(record), context=STORED)
    assert again == record
    assert model.model_validate(json.loads(dump(drop_unknown_fields(record)))) is not None
    assert "of_a_newer_version" not in dump(drop_unknown_fields(record)).decode()


@pytest.mark.parametrize("model", list(EXAMPLES))
async def test_unknown_fields_and_a_higher_format_survive_records(model: type[Record]) -> None:
    name = str(EXAMPLES[model].get(model.key_field or "", "x"))
    store = MemoryStore()
    document = {**EXAMPLES[model], "format": 7, "more": {"deep": [None]}}
    await store.create(f"/x/{name}", json.dumps(document).encode())
    records = Records(store, "/x/", model)
    stored = await records.get(name)
    assert stored is not None
    await records.replace(name, stored.record.model_copy(), stored.revision)
    entry = await store.get(f"/x/{name}")
    assert entry is not None
    assert {"format": 7, "more": {"deep": [None]}}.items() <= json.loads(entry.value).items()


def test_unknown_fields_no_stored_model_has_a_field_named_format() -> None:
    assert not [model for model in EXAMPLES if "format" in model.model_fields]


def _run() -> Run:
    document = json.loads(json.dumps(RUN))
    for record in (document, *document["steps"], *(step["spec"] for step in document["steps"])):
        record["more"] = {"kept": True}
    return Run.model_validate_json(json.dumps(document), context=STORED)


def _moved(run: Run, phase: StepPhase) -> Run:
    return run.with_step(0, run.steps[0].model_copy(update={"phase": phase, "attempt": 5}))


@pytest.mark.parametrize(
    "change",
    [
        lambda run: run.with_step(1, run.steps[1].move(StepPhase.PREPARING, run.created_at)),
        lambda run: run.move(RunPhase.FAILED, finished_at=run.created_at),
        lambda run: _moved(run, StepPhase.LOST),
    ],
)
def test_unknown_fields_run_moves_keep_unknown_fields_of_its_steps(change: Callable[[Run], Run]) -> None:
    assert dump(change(_run())).count(b'"more":{"kept":true}') == 5


def test_unknown_fields_carry_over_to_new_definition() -> None:
    before = Pipeline.model_validate_json(
        '{"name":"p","x":1,"steps":[{"name":"one","tool":"t","dataset":"d","y":null,"retry":{"z":2}},'
        '{"name":"two","tool":"t","dataset":"d","gone":1}]}',
        context=STORED,
    )
    after = Pipeline.model_validate(
        {
            "name": "p",
            "description": "new",
            "steps": [
                {"name": "new", "tool": "t", "dataset": "d"},
                {"name": "one", "tool": "u", "dataset": "d"},
            ],
        }
    )
    carried = json.loads(dump(carry_unknown_fields(before, after)))
    assert (carried["x"], carried["description"]) == (1, "new")
    assert "y" not in carried["steps"][0]
    assert (carried["steps"][1]["y"], carried["steps"][1]["tool"]) == (None, "u")
    assert carried["steps"][1]["retry"]["z"] == 2
    assert carry_unknown_fields(after, after) is after


def test_unknown_fields_fields_of_are_enough_to_make_another_record() -> None:
    stored = Dataset.model_validate_json('{"name":"d","master":"/d.git","more":1}', context=STORED)
    assert "more" not in stored_fields(stored)
    assert Dataset(**stored_fields(stored)).name == "d"


def test_unknown_fields_known_fields_are_as_compact_as_before() -> None:
    """The previous version refuses unknown fields, so new fields must not be written by default."""
    run = Run.model_validate(RUN)
    assert "format" not in json.loads(dump(run))
    assert StepRun.model_validate(STEP).times == {StepPhase.PENDING: run.created_at}
    assert format_time(run.created_at) == NOW
