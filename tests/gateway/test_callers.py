"""Callers that need no token on loopback, with a real gateway, real ports and real users."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from mao_gateway import callers
from mao_gateway.app import make_app
from mao_gateway.auth import load_or_create_token, new_token
from mao_gateway.callers import LocalCallers, is_local_process
from mao_gateway.settings import GatewaySettings
from mao_shared.conditions import conditions_of
from mao_shared.host.sockets import find_socket
from mao_shared.store.memory import MemoryStore
from tests.support.services import serving
from tests.support.users import NOBODY, SOMEBODY, as_user, common_folder, needs_root, status_of


@asynccontextmanager
async def gateway(**settings: Any) -> AsyncIterator[str]:
    """Yield the URL of a gateway without services; `/docs` needs none."""
    store = MemoryStore()
    async with serving(make_app(GatewaySettings(**settings), store=store)) as url:
        yield url
    await store.close()


async def answers(url: str, uid: int, *options: str) -> int:
    return await asyncio.to_thread(status_of, f"{url}/docs", uid, *options)


async def test_caller_own_user_needs_no_token() -> None:
    async with gateway() as url, httpx.AsyncClient() as client:
        assert (await client.get(f"{url}/docs")).status_code == 200


@needs_root
async def test_caller_other_user_needs_token_unless_listed() -> None:
    async with gateway(local_users=f"daemon,{SOMEBODY}") as url:
        assert await answers(url, 0) == 200
        assert await answers(url, SOMEBODY) == 200
        assert await answers(url, 1) == 200  # daemon
        for uid in (NOBODY, SOMEBODY + 1, 10001):
            assert await answers(url, uid) == 401
        refused = await asyncio.to_thread(
            subprocess.run, as_user(NOBODY, "curl", "-sS", f"{url}/docs"), capture_output=True, text=True
        )
        assert '"not-a-local-user"' in refused.stdout
        assert "MAO_LOCAL_USERS" in refused.stdout


@needs_root
async def test_caller_owner_of_file_replaces_own_user(tmp_path: Path) -> None:
    """As under compose, the gateway's user exists only in its image."""
    file = tmp_path / "compose.yaml"
    file.touch()
    os.chown(file, SOMEBODY, SOMEBODY)
    async with gateway(owner_of=file) as url:
        assert await answers(url, SOMEBODY) == 200
        assert await answers(url, 0) == 200
        assert await answers(url, NOBODY) == 401


@needs_root
async def test_caller_gateway_token_admits_anybody(tmp_path: Path) -> None:
    file = tmp_path / "gateway.token"
    async with gateway(gateway_token_file=file) as url:
        token = file.read_text().strip()
        assert file.stat().st_mode & 0o777 == 0o600
        for right in ((f"authorization: Bearer {token}",), (f"authorization: bearer  {token}",)):
            assert await answers(url, NOBODY, "-H", *right) == 200
        assert await answers(url, NOBODY, "-u", f"x:{token}") == 200
        for wrong in ("", token[:-1], f"{token}0", token.upper(), "Ω"):
            assert await answers(url, NOBODY, "-H", f"authorization: Bearer {wrong}") == 401
        assert await answers(url, 0, "-H", "authorization: Bearer of-another-node") == 200
    async with gateway(gateway_token_file=file) as url:
        assert file.read_text().strip() == token  # a restart does not take it away from those who have it


@needs_root
@pytest.mark.parametrize("shown", [None, "docker compose exec -T gateway cat /run/mao/gateway.token"])
async def test_caller_refusal_names_token_file(tmp_path: Path, shown: str | None) -> None:
    file = tmp_path / "gateway.token"
    async with gateway(gateway_token_file=file, gateway_token_shown=shown) as url:
        argv = as_user(NOBODY, "curl", "-sS", f"{url}/status")
        process = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE)
        told = json.loads((await process.communicate())[0])
    assert told["code"] == "not-a-local-user"
    assert (shown or str(file)) in told["next"]
    assert (str(file) in told["next"]) is (shown is None)  # a container's path says nothing outside


@needs_root
async def test_caller_token_does_not_admit_web_pages(tmp_path: Path) -> None:
    async with gateway(gateway_token_file=tmp_path / "gateway.token") as url:
        token = f"authorization: Bearer {(tmp_path / 'gateway.token').read_text().strip()}"
        for header in ("origin: http://evil.example", "host: evil.example", "sec-fetch-site: cross-site"):
            for uid in (0, NOBODY):
                assert await answers(url, uid, "-H", token, "-H", header) == 403


async def test_gateway_token_readable_by_others_is_replaced(tmp_path: Path) -> None:
    file = tmp_path / "gateway.token"
    for mode, text in ((0o644, "known"), (0o640, "known"), (0o600, " \n")):
        file.write_text(text)
        file.chmod(mode)
        made = load_or_create_token(file)
        assert made is not None
        assert made not in ("known", "")
        assert file.stat().st_mode & 0o777 == 0o600
        assert load_or_create_token(file) == made


async def test_gateway_token_uncreatable_refuses_callers(tmp_path: Path) -> None:
    assert load_or_create_token(tmp_path / "no-folder/gateway.token") is None
    async with gateway(gateway_token_file=tmp_path / "no-folder/gateway.token") as url:
        assert await answers(url, os.geteuid()) == 200
        if os.geteuid() == 0:
            assert await answers(url, NOBODY, "-H", "authorization: Bearer None") == 401


@needs_root
async def test_caller_needs_token_with_tokens_file(tmp_path: Path) -> None:
    token, line = new_token("ada")
    (tmp_path / "tokens").write_text(line)
    async with gateway(tokens_file=tmp_path / "tokens", gateway_token_file=tmp_path / "own") as url:
        for uid in (0, NOBODY):
            assert await answers(url, uid) == 401
            assert await answers(url, uid, "-H", f"authorization: Bearer {token}") == 200
        assert not (tmp_path / "own").exists()


@needs_root
async def test_caller_open_to_local_users_is_reported() -> None:
    store = MemoryStore()
    app = make_app(GatewaySettings(open_to_local_users=True), store=store)
    async with serving(app) as url:
        assert await answers(url, NOBODY) == 200
        assert await answers(url, NOBODY, "-H", "host: evil.example") == 403
        [condition] = [c for c in conditions_of(app).current() if c.name == "open-to-local-users"]
        assert condition.state == "degraded"
        assert "MAO_LOCAL_USERS" in condition.next
    await store.close()


@needs_root
async def test_caller_health_checks_are_open() -> None:
    async with gateway() as url:
        assert await asyncio.to_thread(status_of, f"{url}/livez", NOBODY) == 200
        assert await asyncio.to_thread(status_of, f"{url}/livez", NOBODY, "-H", "host: 10.0.0.7") == 200
        for path in ("/metrics", "/", "/docs", "/events", "/conditions", "/livez/", "//livez", "/readyz/x"):
            assert await asyncio.to_thread(status_of, url + path, NOBODY) == 401


@pytest.mark.parametrize("tokens", [False, True])
async def test_caller_refused_sees_readiness_only(tokens: bool, tmp_path: Path) -> None:
    """Refused callers include rebound pages and callers without a token."""
    token, line = new_token("ada")
    (tmp_path / "tokens").write_text(line)
    store = MemoryStore()
    app = make_app(GatewaySettings(tokens_file=tmp_path / "tokens" if tokens else None), store=store)
    conditions_of(app).report("remote", "secret-data", detail="/srv/secret", next_step="", state="degraded")
    known = {"authorization": f"Bearer {token}"} if tokens else {}
    async with serving(app) as url, httpx.AsyncClient(base_url=url) as client:
        full = await client.get("/readyz", headers=known)
        strangers = [
            await client.get("/readyz", headers={**known, "host": "localhost", **odd})
            for odd in (
                {"host": "" if tokens else "evil.example"} | ({"authorization": ""} if tokens else {}),
                {"origin": "http://evil.example"},
                {"sec-fetch-site": "cross-site"},
            )
        ]
        if os.geteuid() == 0 and not tokens:
            asked = as_user(NOBODY, "curl", "-sS", f"{url}/readyz")
            printed = await asyncio.to_thread(subprocess.check_output, asked, text=True)
            assert printed == strangers[0].text.replace(
                strangers[0].json()["request_id"], json.loads(printed)["request_id"]
            )
    await store.close()
    assert "secret" in full.text
    assert "checks" in full.json()
    for answer in strangers:
        assert answer.status_code == full.status_code == 503
        assert set(answer.json()) == {
            "type", "title", "status", "detail", "code", "next", "request_id", "version",
        }  # fmt: skip
        assert answer.json()["detail"] == "The gateway service is not ready."


async def test_caller_kept_connection() -> None:
    async with gateway() as url, httpx.AsyncClient() as client:
        assert {(await client.get(f"{url}/docs")).status_code for _ in range(20)} == {200}


async def test_caller_many_connections() -> None:
    limits = httpx.Limits(max_keepalive_connections=0)
    async with gateway() as url, httpx.AsyncClient(limits=limits, timeout=60) as client:
        got = await asyncio.gather(*(client.get(f"{url}/docs") for _ in range(60)))
    assert {answer.status_code for answer in got} == {200}


HANGS_UP = """
import socket, struct, sys
caller = socket.create_connection((sys.argv[1], int(sys.argv[2])))
caller.sendall(b"POST /registry/tools HTTP/1.1\\r\\nHost: localhost\\r\\ncontent-length: 2\\r\\n\\r\\n{}")
if sys.argv[3] == "reset":
    caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
caller.close()
"""


@needs_root
@pytest.mark.parametrize("how", ["close", "reset"])
async def test_caller_closed_connection_is_not_root(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel shows an abandoned connection as owned by root."""
    seen: list[bool] = []
    ask = LocalCallers.admits

    async def noted(self: LocalCallers, scope: Any) -> bool:
        seen.append(await ask(self, scope))
        return seen[-1]

    monkeypatch.setattr(LocalCallers, "admits", noted)
    async with gateway() as url:
        host, _, port = url.removeprefix("http://").partition(":")
        for _ in range(20):
            argv = as_user(NOBODY, sys.executable, "-c", HANGS_UP, host, port, how)
            assert await asyncio.to_thread(subprocess.call, argv) == 0
        assert await answers(url, NOBODY) == 401
    assert True not in seen
    assert False in seen


@needs_root
@pytest.mark.parametrize("bound", ["::1", "127.0.0.1"])
async def test_caller_user_over_ipv4_and_ipv6(bound: str) -> None:
    """Covers a gateway on ::1, and calls to an IPv4 address from IPv6 sockets."""
    seen: dict[int, bool] = {}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            uid = int(scope["query_string"])
            seen[uid] = await known.admits(scope)
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body", "body": b""})

    known = LocalCallers(frozenset({0, SOMEBODY}), sees_processes=True)
    async with serving(app, bound) as url:
        port = url.rpartition(":")[2]
        host = "[::1]" if bound == "::1" else "[::ffff:127.0.0.1]"
        for uid in (0, SOMEBODY, NOBODY):
            await asyncio.to_thread(status_of, f"http://{host}:{port}/?{uid}", uid, "-g")
    assert seen == {0: True, SOMEBODY: True, NOBODY: False}


async def test_caller_without_address_is_unknown() -> None:
    known = LocalCallers(frozenset({0, os.geteuid()}), sees_processes=False)
    for scope in (
        {},
        {"client": None, "server": None},
        {"client": ["1.2.3.4", 5], "server": ["/run/x", None]},
    ):
        assert not await known.admits(scope)


@pytest.mark.parametrize("readable", [True, False])
async def test_caller_other_pid_namespace_is_refused(readable: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the kernel `unshare --pid` is the same as a container on the host's network."""
    if os.geteuid() != 0:
        pytest.skip("only root can make a namespace here")
    async with gateway() as url:
        if not readable:  # as on a node of an ordinary user, which may not see what others have open
            monkeypatch.setattr(callers, "_holds", lambda pid, name: False)
        inside = ["unshare", "--pid", "--fork", "--mount-proc", "curl", "-s", "-o", "/dev/null"]
        done = await asyncio.to_thread(
            subprocess.run, [*inside, "-w", "%{http_code}", f"{url}/docs"], capture_output=True, text=True
        )
    assert done.stdout == "401"


@needs_root
async def test_caller_set_uid_program_is_not_root() -> None:
    with common_folder() as folder:
        program = Path(shutil.copy(str(shutil.which("curl")), folder / "curl"))
        program.chmod(0o4755)
        quiet = ["-s", "-o", "/dev/null", "-w", "%{http_code}"]
        async with gateway() as url:
            for uid, expected in ((NOBODY, "401"), (SOMEBODY, "401"), (0, "200")):
                argv = as_user(uid, str(program), *quiet, f"{url}/docs")
                assert await asyncio.to_thread(subprocess.check_output, argv, text=True) == expected


# Call the given address from a service, from a service's grandchild, and from other programs.
SUPERVISES = """
import subprocess, sys
curl = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}\\n", sys.stdin.readline().strip()]
service, shell = [sys.executable, "-m", "mao_datamgmt"], ["sh", "-c", '"$@"; true', "sh"]
for argv in (service + curl, service + shell + curl, curl, shell + curl, shell + service + curl):
    sys.stdout.write(subprocess.check_output(argv, start_new_session=True, text=True))
"""


async def test_caller_own_service_is_refused(tmp_path: Path) -> None:
    """For example by git-lfs, which sends its content where a remote says."""
    (tmp_path / "mao_datamgmt.py").write_text("import subprocess, sys\nsubprocess.call(sys.argv[1:])\n")
    supervisor = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SUPERVISES, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=tmp_path
    )
    async with gateway(supervisor=supervisor.pid) as url:
        printed, _ = await supervisor.communicate(f"{url}/docs\n".encode())
        assert printed.split() == [b"401", b"401", b"200", b"200", b"200"]
        assert await answers(url, os.geteuid()) == 200


async def test_caller_socket_of_other_user_is_refused() -> None:
    """For example one that a tool made as root and handed to a program of this machine."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as caller,
    ):
        found = find_socket(caller.getsockname(), server.getsockname())
        assert found is not None
        assert is_local_process(found)
        assert not is_local_process(replace(found, uid=found.uid + 1))
