"""Validation of datasets' URLs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mao_shared.git_urls import canonical_url, has_secret, local_path, remote_url_fault, same_remote


@pytest.mark.parametrize(
    "url",
    [
        "/srv/git/data.git",
        "file:///srv/git/data.git",
        "file://localhost/srv/git/data.git",
        "https://git.example.org/lab/data.git",
        "https://git.example.org:8443/lab/data.git",
        "https://[2001:db8::1]/data.git",
        "HTTPS://git.example.org/data.git",
        "ssh://git@git.example.org/lab/data.git",
        "ssh://git@git.example.org:2222/~lab/data.git",
        "ssh://git@[::1]:2222/data.git",
        "git@git.example.org:lab/data.git",
        "git@127.0.0.1:/srv/git/data.git",
        "git@[::1]:data.git",
        "git@compose_host:data.git",
        "git@host:my data.git",
        "/srv/my data/x.git",
        "/srv/100%/a#b/what?/it's/Größe/q\"/x.git",
        "/srv/%0a/%2e%2e/-x.git",
        "/srv/a;b|c&d$e`f\\g/x.git",
        "/ lead/trail /x.git",
        "file:///srv/my%20data/x.git",
        "ssh://git@host/my%20data/x.git",
    ],
)
def test_git_urls_allowed(url: str) -> None:
    assert remote_url_fault(url) is None


@pytest.mark.parametrize(
    ("url", "because"),
    [
        ("ext::sh -c 'id >/tmp/x'", "remote helper"),
        ("ext::sh", "remote helper"),
        ("fd::17/foo", "remote helper"),
        ("transport::https://example.org/x", "remote helper"),
        ("::x", "remote helper"),
        ("--upload-pack=touch /tmp/x", "option"),
        ("-oProxyCommand=id", "option"),
        ("ssh://-oProxyCommand=id/x", "malformed"),
        ("ssh://git@-oProxyCommand=id/x", "malformed"),
        ("git@-host:x", "neither"),
        ("git@host:-x", "option"),
        ("/srv/git/a\nb", "control"),
        ("/srv/git/a\tb", "control"),
        ("/srv/git/\x9bb", "control"),
        ("file:///srv/git/a b", "space"),
        ("ssh://git@host/a b", "space"),
        ("ssh://git@host/a%0ab", "control"),
        ("https://example.org/%0d%0aHost:x", "control"),
        ("https://example.org/%00", "control"),
        ("\x00/srv", "control"),
        ("http://git.example.org/data.git", "http://"),
        ("http://user:pw@git.example.org/data.git", "http://"),
        ("https://user:pw@git.example.org/data.git", "password"),
        ("https://ghp_token@git.example.org/data.git", "secret"),
        ("https://git.example.org/data.git?access_token=x", "'?'"),
        ("https://git.example.org/data.git#x", "'#'"),
        ("ssh://git:pw@git.example.org/data.git", "password"),
        ("ssh://git@git.example.org:99999/data.git", "malformed"),
        ("ssh://git@git.example.org", "no path"),
        ("https:///data.git", "malformed"),
        ("https://git.example.org/", "no path"),
        ("file://elsewhere/srv/data.git", "names no host"),
        ("file://", "no path"),
        ("git://git.example.org/data.git", "git://"),
        ("ftp://git.example.org/data.git", "ftp://"),
        ("javascript://x/y", "javascript://"),
        ("data.git", "neither"),
        ("./data.git", "neither"),
        ("~/data.git", "neither"),
        ("/srv/../etc", "'..'"),
        ("file:///srv/%2e%2e/etc", "'..'"),
        ("file:///srv%2F..%2Fetc", "'..'"),
        ("ssh://git@host/a/%2E./etc", "'..'"),
        ("git@host:../etc", "'..'"),
        ("/", "no path"),
        ("git.example.org:data.git", "neither"),
        ("C:\\data", "neither"),
        ("", "neither"),
    ],
)
def test_git_urls_refused(url: str, because: str) -> None:
    fault = remote_url_fault(url)
    assert fault is not None
    assert because in fault


@pytest.mark.parametrize(
    ("text", "carries"),
    [
        ("https://user:pw@example.org/x", True),
        ("see https://u:p@h", True),
        ("https://ghp_token@example.org/x", True),
        ("ssh://git@example.org/x", False),
        ("ssh://git:pw@example.org/x", True),
        ("https://example.org:8443/a@b", False),
        ("git@example.org:x", False),
        ("", False),
    ],
)
def test_git_urls_passwords_and_tokens_are_seen(text: str, carries: bool) -> None:
    assert has_secret(text) is carries


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("/srv/git/a.git", "/srv//git/a.git/", True),
        ("/srv/git/a", "/srv/git/a/.git", True),
        ("/srv/git/a.git", "file:///srv/git/a%2Egit", True),
        ("file:///srv/a", "file://localhost/srv/a", True),
        ("/srv/git/a.git", "/srv/git/a", True),  # unless both are seen to be there
        ("FILE:///srv/git/a.git", "/srv/git/a.git", True),
        ("/srv/./git/a.git", "/srv/git/a.git", True),
        ("file:///srv/%67it/a.git", "/srv/git/a.git", True),
        ("ssh://git@host/~/a.git", "git@host:a.git", True),
        ("ssh://git@host:0022/a", "ssh://git@host/a", True),
        ("git@[::1]:a.git", "ssh://git@[0:0:0:0:0:0:0:1]/a", True),
        ("ssh://git@[::1]:22/a", "ssh://git@[::1]/a", True),
        ("https://HOST/%61", "https://host/a", True),
        ("ssh://git@host/a", "/a", False),
        ("/srv/git/a.git", "/srv/git/A.git", False),
        ("git@host:lab/a.git", "ssh://git@HOST:22/lab/a", True),
        ("git@host:lab/a.git", "https://host:443/lab/a/", True),
        ("git@host:lab/a.git", "git@host:lab/b.git", False),
        ("ann@host:a.git", "bob@host:a.git", False),  # in their homes
        ("ssh://git@host:2222/a", "ssh://git@host/a", False),
        ("https://host/a", "https://other/a", False),
    ],
)
def test_git_urls_two_ways_to_write_one_repository(one: str, other: str, same: bool) -> None:
    assert (canonical_url(one) == canonical_url(other)) is same


SEEN: dict[str, tuple[Callable[[Path], str], bool]] = {
    "itself": (lambda f: f"{f}/a.git", True),
    "through a link": (lambda f: f"{f}/link", True),
    "through a link above": (lambda f: f"{f}/up/{f.name}/a.git", True),
    "as a file URL": (lambda f: f"file://localhost{f}/link", True),
    "with a slash": (lambda f: f"{f}//a.git/", True),
    "without .git": (lambda f: f"{f}/a", True),
    "its .git folder": (lambda f: f"{f}/work/.git", True),
    "its checkout": (lambda f: f"{f}/work", True),
    "another that is there": (lambda f: f"{f}/b.git", False),
    "another by a link": (lambda f: f"{f}/other", False),
    "another that is not there": (lambda f: f"{f}/c.git", False),
    "over the network": (lambda f: f"ssh://git@localhost{f}/a.git", False),
}


@pytest.mark.parametrize("case", SEEN)
def test_git_urls_local_folders_are_compared_by_real_path(tmp_path: Path, case: str) -> None:
    for name in ("a.git", "b.git", "work"):
        (tmp_path / name).mkdir()
    (tmp_path / "work/.git").symlink_to(tmp_path / "a.git")
    (tmp_path / "link").symlink_to("a.git")
    (tmp_path / "other").symlink_to("b.git")
    (tmp_path / "up").symlink_to(tmp_path.parent)
    url, same = SEEN[case]
    assert same_remote(f"{tmp_path}/a.git", url(tmp_path)) is same
    assert same_remote(url(tmp_path), f"{tmp_path}/a.git") is same


def test_git_urls_two_folders_that_differ_in_git_only_are_two(tmp_path: Path) -> None:
    for name in ("a", "a.git"):
        (tmp_path / name).mkdir()
    assert not same_remote(f"{tmp_path}/a", f"{tmp_path}/a.git")


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("/srv/a.git", "/srv/a.git"),
        ("file:///srv/a%20b", "/srv/a b"),
        ("FILE://localhost/srv/a", "/srv/a"),
        ("ssh://git@host/a", None),
        ("git@host:/a", None),
    ],
)
def test_git_urls_what_is_on_this_machine(url: str, path: str | None) -> None:
    assert local_path(url) == (None if path is None else Path(path))
