"""Exit codes, error messages and next steps."""

from __future__ import annotations

import pytest

from maoctl.main import run_command
from maoctl.session import CliSession

from . import documents
from .conftest import Maoctl
from .gateways import RememberingGateway


@pytest.mark.parametrize(
    ("status", "code", "exit_code"),
    [
        (401, "unauthorized", 4),
        (403, "forbidden", 4),
        (404, "not-found", 3),
        (409, "still-referenced", 5),
        (412, "precondition-failed", 5),
        (422, "invalid-input", 2),
        (500, "internal", 1),
        (503, "store-unavailable", 6),
    ],
)
def test_exit_code_detail_and_next_step_of_a_problem(
    maoctl: Maoctl, gateway: RememberingGateway, status: int, code: str, exit_code: int
) -> None:
    gateway.problem("GET", "/registry/tools/crawler", status, code, next="Do this.")

    result = maoctl("tool", "get", "crawler")

    assert (result.code, result.out) == (exit_code, "")
    assert result.err == f"error: It is {code}.\nnext: Do this.\n"


def test_error_without_a_node_names_the_address_and_how_to_start_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code = run_command(["tool", "get"], CliSession({"MAO_URL": "http://127.0.0.1:9"}))

    err = capsys.readouterr().err
    assert code == 6
    assert "http://127.0.0.1:9" in err
    assert "make node" in err
    assert "MAO_URL" in err


def test_error_lists_invalid_fields_without_a_call(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    result = maoctl("tool", "add", "a/b", "me", "lab/x:1", "--memory", "lots", "--network", "moon")

    assert result.code == 2
    assert "  name: " in result.err
    assert "  limits.memory: invalid size; write bytes or for example '512m' or '2g'" in result.err
    assert "  network: " in result.err
    assert gateway.calls == []


def test_error_lists_fields_refused_by_the_node(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    errors = [{"field": "cron", "message": "the minute is 61"}]
    gateway.problem("POST", "/pipeline/run", 422, "cron-invalid", errors=errors, next="Write '0 2 * * *'.")

    result = maoctl("pipeline", "run", "daily", "--cron", "61 * * * *")

    assert result.code == 2
    assert result.err == "error: It is cron-invalid.\n  cron: the minute is 61\nnext: Write '0 2 * * *'.\n"


def test_error_names_one_refused_field_once(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    errors = [{"field": "phase", "message": "is wrong"}]
    api_words = "Correct what 'errors' lists; /docs shows the fields of GET /runs."
    gateway.problem(
        "GET", "/runs", 422, "invalid-input", detail="phase: is wrong", errors=errors, next=api_words
    )

    result = maoctl("run", "list", "--phase", "faild")

    assert result.code == 2
    first, second = result.err.splitlines()
    assert first == "error: phase: is wrong"
    assert second.startswith("next: ")
    assert "/docs" not in second


WEBHOOK = {"name": "lab", "url": "https://lab.example.org", "created_at": documents.ago(9)}


@pytest.mark.parametrize(
    ("args", "listing", "known", "meant"),
    [
        (("tool", "get", "crawlr"), "/registry/tools", documents.tool("crawler"), "crawler"),
        (("dataset", "remove", "Data1", "--yes"), "/registry/datasets", documents.dataset("data"), "data"),
        (("pipeline", "run", "dayly"), "/registry/pipelines", documents.pipeline("daily"), "daily"),
        (("webhook", "show", "lb"), "/webhooks", WEBHOOK, "lab"),
        (("webhook", "rm", "lba", "--yes"), "/webhooks", WEBHOOK, "lab"),
        (("webhook", "test", "Lab"), "/webhooks", WEBHOOK, "lab"),
        (("node", "show", "node1"), "/federation/nodes", documents.node("node-1"), "node-1"),
    ],
)
def test_error_suggests_similar_names(
    maoctl: Maoctl,
    gateway: RememberingGateway,
    args: tuple[str, ...],
    listing: str,
    known: documents.Json,
    meant: str,
) -> None:
    gateway.keep(listing, known)

    result = maoctl(*args)

    assert result.code == 3
    assert result.err.endswith(f"next: Did you mean {meant}?\n")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("tol",), "Did you mean tool"),
        (("tool", "get", "--nope"), "--nope"),
        (("tool", "get", "-o", "xml"), "xml"),
        (("pipeline", "create", "x", "--step", "justatool"), "TOOL:DATASET"),
        (("pipeline", "run", "x", "--timezone", "UTC"), "--timezone requires --cron"),
        (("pipeline", "run", "x", "--cron", "@daily", "--wait"), "maoctl job wait"),
        (("run", "wait", "x", "--timeout", "soon"), "90s"),
        (("job", "backfill", "x", "--since", "yesterday"), "2026-01-31T12:00:00Z"),
        (("--url", "ftp://x", "tool", "get"), "http://127.0.0.1:8080"),
        (("tool", "add", "x", "me", "lab/x:1", "--env", "NOVALUE"), "NAME=VALUE"),
    ],
)
def test_usage_errors(maoctl: Maoctl, args: tuple[str, ...], said: str) -> None:
    result = maoctl(*args)

    assert (result.code, result.out) == (2, "")
    assert said in result.err


def test_remove_needs_confirmation(
    maoctl: Maoctl, gateway: RememberingGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    gateway.keep("/registry/tools", documents.tool("crawler"))

    result = maoctl("tool", "remove", "crawler")

    assert result.code == 2
    assert "--yes" in result.err
    assert gateway.called("DELETE", "/registry/tools/crawler") == []


def test_name_is_quoted_in_the_path(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    maoctl("dataset", "log", "../runs?x=1")

    assert {call.path for call in gateway.calls} <= {"/datasets/..%2Fruns%3Fx%3D1/log", "/registry/datasets"}


def test_token_is_sent_and_never_printed(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    maoctl.environ["MAO_TOKEN"] = "mao_secret"
    gateway.problem("GET", "/registry/tools", 401, "token-unknown", next="Ask the operator.")

    result = maoctl("tool", "get")

    assert gateway.calls[0].headers["authorization"] == "Bearer mao_secret"
    assert result.code == 4
    assert "mao_secret" not in result.out + result.err
