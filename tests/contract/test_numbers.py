"""Numbers beyond Python's limits are refused with a message by every reader, never with a traceback."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from pydantic import TypeAdapter, ValidationError
from typer.testing import CliRunner

from mao_datamgmt.monitoring.extract import UnreadableMetric, json_number
from mao_runner.labels import ATTEMPT, RUN, STEP, labelled_attempt
from mao_scheduler.schedules.cron import parse_cron
from mao_shared import commit_messages
from mao_shared.clients.responses import read_etag_revision
from mao_shared.errors import InvalidInput
from mao_shared.git_urls import remote_url_fault
from mao_shared.models.common import Bytes, Seconds
from mao_shared.service.app import run_service
from mao_shared.settings import ServiceSettings
from mao_shared.web.dependencies import if_match
from mao_vote.explain import key_readings
from mao_vote.records.reading.load import NotRecords, RecordFormat, load
from maoctl.commands.external import json_of_typed
from maoctl.documents import DocumentInvalid, read_all

LONG = "9" * 5000  # more digits than int() takes
DEEP = "[" * 100_000


@pytest.mark.parametrize("text", [LONG, f"*/{LONG}", f"1-{LONG}", f"{LONG},1", "9" * 30, "٣"])
def test_numbers_cron_field(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_cron(f"{text} * * * *")


@pytest.mark.parametrize("kind", [Bytes, Seconds])
@pytest.mark.parametrize("text", [LONG, LONG + "m", "1." + LONG, "1e" + LONG, "NaN", "inf", int("9" * 4000)])
def test_numbers_size_and_duration(kind: Any, text: Any) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(kind).validate_python(text)


@pytest.mark.parametrize("text", [f'"{LONG}"', '"' + "9" * 19 + '"', '"٣"', '"1e9"', LONG, '"-1"'])
async def test_numbers_if_match(text: str) -> None:
    with pytest.raises(InvalidInput):
        await if_match(text)


@pytest.mark.parametrize("text", [f'"{LONG}"', '"²"', '"x"', ""])
def test_numbers_revision_of_answer(text: str) -> None:
    answer = httpx.Response(200, headers=[(b"etag", text.encode())])
    assert read_etag_revision(answer) is None


@pytest.mark.parametrize(
    "content", [LONG, "9" * 400, "-" + "9" * 4000, "1e999", f'{{"a": {LONG}}}', DEEP, "NaN"]
)
def test_numbers_metric_of_json_file(content: str) -> None:
    data = content.encode()
    with pytest.raises(UnreadableMetric):
        json_number(SimpleNamespace(size=len(data), pieces=[data]), "")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("how", "content"),
    [
        (RecordFormat.JSON, f'[{{"a": {LONG}}}]'),
        (RecordFormat.JSON, f'{{"a": {LONG}}}'),
        (RecordFormat.JSON_LINES, f'{{"a": {LONG}}}'),
    ],
)
def test_numbers_records_of_vote_keep_long_numbers(how: RecordFormat, content: str) -> None:
    assert LONG in load(content.encode(), how).row(0)


@pytest.mark.parametrize("how", [RecordFormat.JSON, RecordFormat.JSON_LINES])
def test_numbers_records_of_vote_refuse_deep_json(how: RecordFormat) -> None:
    with pytest.raises(NotRecords, match="JSON"):
        load(DEEP.encode(), how)


@pytest.mark.parametrize("text", [LONG, DEEP, f'{{"mao": {LONG}}}', "[1]", "nul"])
def test_numbers_record_in_commit_message(text: str) -> None:
    message = f"x\n{commit_messages.BEGIN}\n{text}\n{commit_messages.END}\n"
    assert commit_messages.read_step_record(message) is None


@pytest.mark.parametrize("text", [LONG, DEEP, "[NaN"])
def test_numbers_key_of_cell(text: str) -> None:
    assert key_readings(text) == [[text]]


@pytest.mark.parametrize("number", [LONG, "1.10", "1E5", "-0", "0.1000", "9007199254740993"])
def test_numbers_key_of_cell_is_spelt_as_typed(number: str) -> None:
    assert key_readings(f'["a", {number}]')[-1] == ["a", number]


@pytest.mark.parametrize("number", [LONG, "9" * 10, "-1", "x", "1.0", ""])
def test_numbers_labels_of_container(number: str) -> None:
    assert labelled_attempt({RUN: "r", STEP: number, ATTEMPT: "1"}) is None
    assert labelled_attempt({RUN: "r", STEP: "0", ATTEMPT: number}) is None


@pytest.mark.parametrize("port", [LONG, "65536", "0", "-1", "٣"])
def test_numbers_port_of_remote(port: str) -> None:
    assert remote_url_fault(f"ssh://git@host:{port}/data.git") is not None


@pytest.mark.parametrize("name", ["MAO_PORT"])
@pytest.mark.parametrize("value", [LONG, "1e9", "0x10", "NaN", "8080;"])
def test_numbers_setting(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(name, value)
    never: Callable[[Any], Any] = pytest.fail
    assert run_service("toolbox", ServiceSettings, never) == 2
    assert name in capsys.readouterr().err


@pytest.mark.parametrize(
    "text",
    [
        LONG,
        f"a: {LONG}",
        f"a: -{LONG}",
        f"- {LONG}\n- 1",
        "a: 2026-13-45",
        "a: 0001-01-01T00:00:00+99:99",
        DEEP,
    ],
)
def test_numbers_yaml(text: str) -> None:
    with pytest.raises(DocumentInvalid) as raised:
        read_all(text)
    assert "set_int_max" not in str(raised.value)


@pytest.mark.parametrize("number", [LONG, "-" + LONG, "[" + LONG + "]"])
def test_numbers_definition_of_vote_in_maoctl(number: str, tmp_path: Path) -> None:
    from maoctl.main import app

    (tmp_path / "vdx.yaml").write_text(f"deadline: {number}\n")
    arguments = ["dataset", "vote", "data", "--definition", str(tmp_path / "vdx.yaml")]
    result = CliRunner().invoke(app, arguments, env={"MAO_URL": "http://127.0.0.1:9"})
    assert result.exit_code != 0
    assert not isinstance(result.exception, ValueError | RecursionError)


@pytest.mark.parametrize(
    "typed", [LONG, f"[{LONG}]", "NaN", '{"a": -Infinity}', '["\\ud800"]', '"\\udfffx"', DEEP, "a\udcff"]
)
def test_numbers_value_that_cannot_be_sent(typed: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        json_of_typed(typed, text=False)
    assert raised.value.code == "value-invalid"


@pytest.mark.parametrize(
    ("typed", "sent"),
    [
        ("12", "12"),
        ("1.10\n", "1.10"),
        ("-1e999", "-1e999"),
        ("[1E5, -0.0]", "[1E5, -0.0]"),
        ('\ufeff{"a": 1}\r\n', '{"a": 1}'),
        ('"\\u00fc"', '"\\u00fc"'),
        ("warm\n", '"warm"'),
        ("two\r\nlines\r\n", '"two\\r\\nlines"'),
        ("NaN is no number", '"NaN is no number"'),
        ("[1", '"[1"'),
        ("1, 2", '"1, 2"'),
    ],
)
def test_numbers_value_that_is_json_or_text(typed: str, sent: str) -> None:
    assert json_of_typed(typed, text=False) == sent


def test_numbers_value_that_is_to_be_text() -> None:
    assert json_of_typed(LONG, text=True) == f'"{LONG}"'
