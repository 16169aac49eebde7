"""`maoctl catalogue`: what is sent, asked and printed."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from maoctl.exits import ExitCode

from .conftest import Maoctl
from .gateways import RememberingGateway

Json = dict[str, Any]
REMOTE = "git@git.example.org:mao/raw.git"


def item(kind: str, name: str, state: str, **more: Any) -> Json:
    return {"kind": kind, "name": name, "state": state} | more


def entry(*items: Json, state: str = "ready", **more: Any) -> Json:
    return {"kind": "pipelines", "name": "survey", "state": state, "items": list(items)} | more


MISSING = entry(
    item("pipeline", "survey", "created"),
    item("dataset", "raw", "missing", detail="it is not registered here", next="Give --dataset raw=URL."),
    item("dataset", "sums", "missing", detail="it is not registered here", next="Give --dataset sums=URL."),
    state="incomplete",
)
READY = entry(item("pipeline", "survey", "created"), item("tool", "crawler", "created"))
INSTALLED = READY | {"state": "installed"}


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    path = tmp_path / "lab.json"
    path.write_text(json.dumps({"tools": [{"name": "crawler", "image": "lab/crawler"}], "title": "Lab"}))
    return path


def bodies(gateway: RememberingGateway, verb: str) -> list[Json]:
    return [call.body for call in gateway.called("POST", f"/catalogue/{verb}")]


def test_catalogue_list_says_what_is_missing(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    gateway.answer("GET", "/catalogue", {"items": [MISSING], "cursor": None})
    done = maoctl("catalogue", "list", "hub", "survey", "--source", "lab")
    assert "dataset raw missing, dataset sums missing" in done.out
    assert gateway.calls[0].query == {
        "limit": "500",
        "kind": "pipelines",
        "q": "hub survey",
        "source": "lab",
    }
    assert maoctl("catalogue", "ls", "-o", "name").out == "catalogue-entry/survey\n"


def test_catalogue_list_without_any_configured(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    for path in ("/catalogue", "/catalogue/sources"):
        gateway.answer("GET", path, {"items": [], "cursor": None})
    done = maoctl("catalogue", "list")
    assert (done.code, done.out) == (0, "")
    assert "MAO_CATALOGUES" in done.err


def test_catalogue_list_names_unreadable_one(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    bad = {"name": "hub", "key": "https://x/", "unreadable": "it answered 500", "next": "Try later."}
    gateway.answer("GET", "/catalogue", {"items": [MISSING], "cursor": None, "unreadable": [bad]})
    assert "hub cannot be read: it answered 500" in maoctl("catalogue", "list").err


def test_catalogue_file_is_read_here_and_sent(maoctl: Maoctl, gateway: RememberingGateway, lab: Path) -> None:
    gateway.answer("POST", "/catalogue/inspect", {"items": [MISSING], "cursor": "1"})
    gateway.answer("POST", "/catalogue/inspect", {"items": [READY], "cursor": None})
    done = maoctl("catalogue", "list", "--from", str(lab), "--kind", "tools", "-o", "json")
    assert [one["state"] for one in json.loads(done.out)] == ["incomplete", "ready"]
    first, second = gateway.called("POST", "/catalogue/inspect")
    assert first.body["catalogue"]["tools"] == [{"name": "crawler", "image": "lab/crawler"}]
    assert (first.body["kind"], second.query["cursor"]) == ("tools", "1")
    assert "lab.json" not in first.text


@pytest.mark.parametrize("address", ["http://x.example.org/", "file:///etc/passwd"])
def test_catalogue_file_of_other_scheme(maoctl: Maoctl, gateway: RememberingGateway, address: str) -> None:
    done = maoctl("catalogue", "list", "--from", address)
    assert (done.code, gateway.calls) == (ExitCode.USAGE, [])
    assert "is not allowed" in done.err


def test_catalogue_file_that_is_none(maoctl: Maoctl, gateway: RememberingGateway, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("[1")
    for name, code in (("x.json", ExitCode.USAGE), ("gone.json", ExitCode.UNREACHABLE)):
        done = maoctl("catalogue", "install", "x", "--from", str(tmp_path / name))
        assert (done.code, gateway.calls) == (code, [])
        assert "next: " in done.err


def test_catalogue_install_reports_records(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    gateway.answer("POST", "/catalogue/plan", READY)
    gateway.answer(
        "POST", "/catalogue/install", INSTALLED | {"cron": "0 4 * * *", "timezone": "Europe/Zurich"}
    )
    given = ["--dataset", f"raw={REMOTE}", "--local", "--image", "crawler=mine:1", "--agree", "docker socket"]
    done = maoctl("catalogue", "install", "survey", *given, "--keep", "--source", "lab")
    assert done.code == 0
    assert done.err.splitlines() == [
        "pipeline/survey created",
        "tool/crawler created",
        "pipeline/survey installed",
        "next: maoctl pipeline run survey --cron '0 4 * * *' --timezone Europe/Zurich",
    ]
    expected = {"name": "survey", "kind": "pipelines", "source": "lab", "local": True, "existing": "keep"}
    expected |= {"datasets": {"raw": REMOTE}, "images": {"crawler": "mine:1"}, "agree": ["docker socket"]}
    assert bodies(gateway, "install") == bodies(gateway, "plan") == [expected]


def test_catalogue_install_without_terminal_says_what_to_pass(
    maoctl: Maoctl, gateway: RememberingGateway
) -> None:
    gateway.answer("POST", "/catalogue/plan", MISSING)
    done = maoctl("catalogue", "install", "survey")
    assert (done.code, done.out) == (ExitCode.USAGE, "")
    assert done.err.splitlines() == [
        "error: Nothing of 'survey' was installed:",
        "  dataset raw missing: it is not registered here",
        "  dataset sums missing: it is not registered here",
        "next: Give --dataset raw=URL.",
        "      Give --dataset sums=URL.",
    ]
    assert bodies(gateway, "install") == []


def test_catalogue_install_without_terminal_names_the_secret(
    maoctl: Maoctl, gateway: RememberingGateway
) -> None:
    secret = item(
        "secret", "a-key", "missing", detail="asked for in $KEY", next="Set it: maoctl secret set a-key"
    )
    gateway.answer("POST", "/catalogue/plan", entry(secret, state="incomplete"))
    done = maoctl("catalogue", "install", "survey", "--local")
    assert done.code == ExitCode.USAGE
    assert "secret a-key missing: asked for in $KEY" in done.err
    assert "maoctl secret set a-key" in done.err


def test_catalogue_install_asks_for_secrets_and_keeps_them(
    maoctl: Maoctl, gateway: RememberingGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = item("secret", "a-key", "missing", detail="asked for in $KEY")
    privilege = item("privilege", "secret a-key", "missing", detail="tool a asks for secret a-key")
    for planned in (entry(secret, privilege, state="incomplete"), READY):
        gateway.answer("POST", "/catalogue/plan", planned)
    gateway.answer("POST", "/catalogue/install", INSTALLED)
    state = {"name": "a-key", "created_at": "2026-01-31T12:00:00Z", "changed_at": "2026-01-31T12:00:00Z"}
    gateway.answer("PUT", "/secrets/a-key", state, 201)
    monkeypatch.setattr("sys.stdin", Keyboard(""))
    monkeypatch.setattr("typer.prompt", lambda *_, **options: "canary-1" if options["hide_input"] else "")
    done = maoctl("catalogue", "install", "survey")
    assert done.code == 0, done.err
    assert [call.body for call in gateway.calls if call.method == "PUT"] == [{"value": "canary-1"}]
    assert bodies(gateway, "install")[0]["agree"] == ["secret a-key"]
    assert "canary-1" not in done.out + done.err


def test_catalogue_install_remote_pattern(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    for planned in (MISSING, READY):
        gateway.answer("POST", "/catalogue/plan", planned)
    gateway.answer("POST", "/catalogue/install", INSTALLED)
    pattern = "git@git.example.org:mao/{name}.git"
    done = maoctl("catalogue", "install", "survey", "--remote", pattern)
    assert done.code == 0
    [sent] = bodies(gateway, "install")
    assert sent["datasets"] == {name: f"git@git.example.org:mao/{name}.git" for name in ("raw", "sums")}
    gateway.answers[("POST", "/catalogue/plan")] = [(200, MISSING)]
    assert maoctl("catalogue", "install", "survey", "--remote", "/srv/x").code == ExitCode.USAGE


def test_catalogue_dry_run_installs_nothing(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    gateway.answer("POST", "/catalogue/plan", MISSING)
    done = maoctl("catalogue", "install", "survey", "--dry-run")
    assert (done.code, bodies(gateway, "install")) == (ExitCode.FAILED, [])
    assert "pipeline/survey incomplete (dry run)" in done.err
    assert [line.split()[:3] for line in done.out.splitlines()[1:]] == [
        ["pipeline", "survey", "created"],
        ["dataset", "raw", "missing"],
        ["dataset", "sums", "missing"],
    ]


class Keyboard(io.StringIO):
    """Stdin that is a terminal on which these lines are typed."""

    def isatty(self) -> bool:
        return True


def test_catalogue_install_asks_on_terminal(
    maoctl: Maoctl, gateway: RememberingGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    asking = entry(
        *MISSING["items"],
        item("tool", "other", "missing", detail="it is not there"),
        item("tool", "crawler", "differs", detail="it differs", changes=["image: a → b"]),
        item("privilege", "docker socket", "missing", detail="tool crawler asks for it"),
        state="incomplete",
    )
    for planned in (asking, READY):
        gateway.answer("POST", "/catalogue/plan", planned)
    gateway.answer("POST", "/catalogue/install", INSTALLED)
    monkeypatch.setattr("sys.stdin", Keyboard(f"{REMOTE}\n\nmine:2\ny\ny\n"))
    done = maoctl("catalogue", "install", "survey")
    assert done.code == 0, done.err
    [sent] = bodies(gateway, "install")
    assert (sent["datasets"], sent["local"], sent["images"]) == ({"raw": REMOTE}, True, {"other": "mine:2"})
    assert (sent["existing"], sent["agree"]) == ("keep", ["docker socket"])


def test_catalogue_install_asks_nothing_that_does_not_help(
    maoctl: Maoctl, gateway: RememberingGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = item("variable", "API_KEY", "refused", detail="asks for a secret")
    gateway.answer("POST", "/catalogue/plan", entry(*MISSING["items"], secret, state="unusable"))
    monkeypatch.setattr("sys.stdin", Keyboard(""))
    assert maoctl("catalogue", "install", "survey").code == ExitCode.USAGE


def test_catalogue_install_all_goes_on_after_a_refusal(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    listed = [READY | {"name": name, "title": title} for name, title in (("a", "A title"), ("b", None))]
    gateway.answer("GET", "/catalogue", {"items": listed, "cursor": None})
    for planned in (MISSING, READY):
        gateway.answer("POST", "/catalogue/plan", planned)
    gateway.answer("POST", "/catalogue/install", INSTALLED)
    done = maoctl("catalogue", "install", "--all", "-o", "json")
    assert done.code == ExitCode.FAILED
    assert [sent["name"] for sent in bodies(gateway, "plan")] == ["A title", "b"]
    assert json.loads(done.out)["name"] == "survey"
    assert "Nothing of 'survey' was installed" in done.err


def test_catalogue_install_schedules(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    gateway.answer("POST", "/catalogue/plan", READY)
    gateway.answer("POST", "/catalogue/install", INSTALLED)
    schedule = {"id": "survey-0a1b2c", "pipeline": "survey", "cron": "@daily", "timezone": "Europe/Zurich"}
    gateway.answer("POST", "/pipeline/run", schedule | {"created_at": "2026-01-31T12:00:00Z"}, 201)
    done = maoctl("catalogue", "install", "survey", "--cron", "@daily", "--timezone", "Europe/Zurich")
    assert done.code == 0, done.err
    assert done.err.endswith("pipeline/survey installed\njob/survey-0a1b2c scheduled\n")
    [call] = gateway.called("POST", "/pipeline/run")
    assert call.body == {"name": "survey", "cron": "@daily", "timezone": "Europe/Zurich"}


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["x", "--all"],
        ["x", "--keep", "--replace"],
        ["x", "--kind", "federations"],
        ["x", "--timezone", "UTC"],
        ["x", "--dataset", "raw"],
        ["x", "--image", "crawler=-x"],
        ["x", "--from", "lab.json", "--source", "lab"],
    ],
)
def test_catalogue_install_usage(maoctl: Maoctl, gateway: RememberingGateway, args: list[str]) -> None:
    done = maoctl("catalogue", "install", *args)
    assert done.code == ExitCode.USAGE, done.err
    assert bodies(gateway, "install") == []


def test_catalogue_show_prints_items_and_steps(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    shown = MISSING | {"title": "The \x1b[31msurvey", "notes": ["it counts weekdays"], "source": "lab"}
    gateway.answer("GET", "/catalogue/pipelines/survey", shown)
    done = maoctl("catalogue", "show", "catalogue-entry/survey")
    assert "\x1b" not in done.out + done.err
    assert "note: it counts weekdays" in done.err
    assert "next: Give --dataset raw=URL." in done.err


def test_catalogue_show_federation_of_file(maoctl: Maoctl, gateway: RememberingGateway, lab: Path) -> None:
    found = {"kind": "federations", "name": "Hub", "state": "information", "contacts": ["ada@example.org"]}
    gateway.answer("POST", "/catalogue/inspect", {"items": [found], "cursor": None})
    done = maoctl("catalogue", "show", "Hub", "--kind", "federations", "--from", str(lab))
    assert "ada@example.org" in done.out
    assert "maoctl federation join" in done.err
    missing = maoctl("catalogue", "show", "Hup", "--kind", "federations", "--from", str(lab))
    assert missing.code == ExitCode.NOT_FOUND


def test_catalogue_install_sends_the_digest_of_what_was_shown(
    maoctl: Maoctl, gateway: RememberingGateway
) -> None:
    gateway.answer("POST", "/catalogue/plan", READY | {"digest": "c0ffee"})
    gateway.answer("POST", "/catalogue/install", INSTALLED)
    done = maoctl("catalogue", "install", "survey")
    assert done.code == 0, done.err
    assert [sent.get("digest") for sent in bodies(gateway, "install")] == ["c0ffee"]
