"""Titles and the names derived from them; steps as the original's clients send them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mao_shared.models import Pipeline, PipelineInit, Privileges, Step, Tool, is_name
from mao_shared.models.common import STORED
from mao_shared.models.pipeline import MAX_TITLE_LENGTH, name_from_text, name_from_title, normalize_title
from mao_shared.models.run import has_cron
from mao_shared.store.records import dump

STEPS = [{"tool": "t", "dataset": "d"}]


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("ArtifactHUB Collector packages only", "ArtifactHUB-Collector-packages-only"),
        ("Docker-Compose Validator Demo", "Docker-Compose-Validator-Demo"),
        ("Übersicht über Größen", "Ubersicht-uber-Grossen"),
        ("a/b", "a-b"),
        ("../etc", "etc"),
        ("x.lock", "x-lock"),
        ("system-performance", "system-performance"),
        ("🚀", "title-ebbc0b28"),
        ("日本語", "title-77710aed"),
    ],
)
def test_title_gives_its_name(title: str, name: str) -> None:
    assert name_from_title(title) == name


@given(st.text(min_size=1, max_size=MAX_TITLE_LENGTH + 20))
def test_title_every_title_gives_a_name_and_always_the_same(text: str) -> None:
    try:
        title = normalize_title(text)
    except ValueError:
        return
    name = name_from_title(title)
    assert is_name(name)
    assert name_from_title(name) == name
    assert name_from_text(f"  {title}  ") == name
    pipeline = Pipeline.model_validate({"name": title, "steps": STEPS})
    assert (pipeline.name, pipeline.title) == (name, None if name == title else title)
    assert Pipeline.model_validate_json(dump(pipeline), context=STORED) == pipeline


def test_title_long_titles_that_begin_alike_have_two_names() -> None:
    names = {
        name_from_title("long " + "x" * 195),
        name_from_title("long " + "x" * 194 + "y"),
        name_from_title("x" * 200),
    }
    assert len(names) == 3
    assert all(len(name) <= 63 for name in names)


@pytest.mark.parametrize("text", ["", "  ", "two\nlines", "a\0b", "\ud800 half", "x" * 501, "a\u2028b"])
def test_title_rejects_text_that_is_not_one_line(text: str) -> None:
    for body in ({"name": text, "steps": STEPS}, {"title": text, "steps": STEPS}):
        with pytest.raises(ValidationError):
            PipelineInit.model_validate(body)


def test_title_and_a_name_that_do_not_belong_together_are_refused() -> None:
    for model in (Pipeline, PipelineInit):
        made = model.model_validate({"name": "a-b", "title": "a b", "steps": STEPS})
        assert (made.name, made.title) == ("a-b", "a b")
        assert model.model_validate({"title": "a b", "steps": STEPS}).name == "a-b"
        with pytest.raises(ValidationError, match="leave 'name' out"):
            model.model_validate({"name": "other", "title": "a b", "steps": STEPS})


def test_title_step_may_have_a_title() -> None:
    step = Step.model_validate({"name": "First things", "tool": "t", "dataset": "d"})
    assert (step.name, step.title) == ("First-things", "First things")
    with pytest.raises(ValidationError, match="same name"):
        Pipeline.model_validate(
            {"name": "p", "steps": [{**STEPS[0], "name": "a b"}, {**STEPS[0], "name": "a/b"}]}
        )


@pytest.mark.parametrize("command", [[], "", None, {}, "   "])
def test_title_empty_command_is_that_of_the_image(command: Any) -> None:
    assert Step.model_validate({**STEPS[0], "cmd": command}).command is None
    assert Tool.model_validate({"name": "t", "image": "busybox", "command": command}).command is None
    assert PipelineInit.model_validate({"tool": "t", "dataset": "d", "cmd": command}).command is None


@pytest.mark.parametrize(
    ("said", "wanted"),
    [(True, True), ("true", True), (1, True), (False, False), ("false", False), (None, False), ("", False)],
)
def test_title_seeds_word_for_the_engines_socket(said: Any, wanted: bool) -> None:
    step = Step.model_validate({**STEPS[0], "docker_socket": said})
    assert step.engine_socket is wanted
    made = PipelineInit.model_validate({"tool": "t", "dataset": "d", "docker_socket": said}).pipeline()
    assert made.steps[0].engine_socket is wanted


def test_title_unset_fields_are_not_written() -> None:
    pipeline = Pipeline.model_validate({"name": "p", "steps": STEPS})
    tool = Tool(name="t", image="busybox")
    for text in (
        dump(pipeline),
        dump(tool),
        pipeline.model_dump_json().encode(),
        repr(tool.model_dump()).encode(),
    ):
        assert b"socket" not in text
        assert b"title" not in text
    assert b"docker_socket" not in dump(
        Pipeline.model_validate({"name": "p", "steps": [{**STEPS[0], "docker_socket": True}]})
    )  # version 0.1.0 reads no record with the seed's word
    assert Privileges(docker_socket=True).asked() == ["docker socket"]


@pytest.mark.parametrize(
    ("body", "scheduled"),
    [
        ({}, False),
        ({"cron": None}, False),
        ({"cron": ""}, False),
        ({"cron": " "}, False),
        ({"cron": False}, False),
        ({"cron": "@daily"}, True),
        ({"cron": 5}, True),
    ],
)
def test_title_empty_cron_is_ad_hoc(body: dict[str, Any], scheduled: bool) -> None:
    assert has_cron(body) is scheduled
