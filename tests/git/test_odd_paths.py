"""Data directories and remotes with characters that are special in a URL, a shell or a configuration."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from mao_datamgmt.datasets import clones
from mao_datamgmt.datasets.clones import check_remote, init_bare
from mao_datamgmt.datasets.delivery import push_branches
from mao_git import Clone
from mao_shared.errors import MaoError
from mao_shared.git_urls import normalized_url
from mao_shared.models import Dataset
from tests.datamgmt.test_races import commit
from tests.datamgmt.world import NODE, context_for
from tests.support.git import bare_repository, git
from tests.support.sshd import SshServer, ssh_server

NAMES = [
    "a b",
    "100%",
    "50%20x",
    "a#b",
    "it's",
    "Größe 日本",
    "what?",
    "a;b",
    'q"q',
    "back\\slash",
    "$HOME",
    "[x]",
    "a&b",
    " lead",
    "trail ",
    "-dash",
    "~x",
    "(p)",
    "a`id`b",
    "a,b",
    "%2e%2e",
    "tab%09",
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    with ssh_server(tmp_path_factory.mktemp("sshd")) as running:
        yield running


@pytest.mark.parametrize("form", ["path", "file://"])
@pytest.mark.parametrize("name", NAMES)
def test_local_remote_with_an_odd_name(tmp_path: Path, name: str, form: str) -> None:
    if form == "file://" and name in ("%2e%2e", "tab%09"):
        pytest.skip("in a URL these are refused, as what they may stand for")
    context = context_for(tmp_path, data_dir=tmp_path / name / "node", local_remotes="")
    master = init_bare(context.data, "x").master
    url = master if form == "path" else form + quote(master)
    assert Dataset(name="data", master=url).master == url
    check_remote(context, url)
    clones.ensure_clone(context, "data", url)
    commit(context, "a")
    clone = Clone.open(context.data.clone("data"))
    assert clone.url == url
    assert push_branches(context, clone, promote=True).pushed
    clone.fetch(context.access)
    assert git(Path(master), "log", "-1", "--format=%s", NODE) == "a"


@pytest.mark.sshd
@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("%2e%2e", "tab%09")])
def test_ssh_url_with_a_percent_encoded_name(tmp_path: Path, server: SshServer, name: str) -> None:
    remote = bare_repository(tmp_path / name / "x.git")
    context = context_for(tmp_path, ssh_dir=server.key_dir)
    url = server.url(Path(quote(str(remote))))
    check_remote(context, url)
    clones.ensure_clone(context, "data", url)
    commit(context, "a")
    assert push_branches(context, Clone.open(context.data.clone("data")), promote=True).pushed
    assert git(remote, "log", "-1", "--format=%s", NODE) == "a"


@pytest.mark.parametrize(
    ("url", "sent"),
    [
        ("ssh://git@host/a/b.git", "ssh://git@host/a/b.git"),
        ("ssh://git@host:22/a%20b", "[git@host:22]:/a b"),
        ("ssh://host/~me/a%23b", "[host]:~me/a#b"),
        ("ssh://git@[::1]:22/a%20b", "ssh://git@[::1]:22/a b"),
        ("git@host:a%20b", "git@host:a%20b"),
        ("https://host/a%20b", "https://host/a%20b"),
        ("/srv/a%20b", "/srv/a%20b"),
    ],
)
def test_normalized_url(url: str, sent: str) -> None:
    assert normalized_url(url) == sent


def test_advice_is_quoted_for_a_shell(tmp_path: Path) -> None:
    context = context_for(tmp_path)
    for name in ("it's here", "$HOME", "a b;c"):
        with pytest.raises(MaoError) as caught:
            check_remote(context, str(tmp_path / name))
        assert f"git ls-remote {shlex.quote(str(tmp_path / name))} " in (caught.value.next or "")
