"""Which URLs a dataset may have."""

from __future__ import annotations

import pytest

from mao_shared.git_urls import carries_secret, master_fault, place_of


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
    ],
)
def test_allowed(url: str) -> None:
    assert master_fault(url) is None


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
        ("/srv/git/a b", "space"),
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
        ("git@host:../etc", "'..'"),
        ("/", "no path"),
        ("git.example.org:data.git", "neither"),
        ("C:\\data", "neither"),
        ("", "neither"),
    ],
)
def test_refused(url: str, because: str) -> None:
    fault = master_fault(url)
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
def test_passwords_and_tokens_are_seen(text: str, carries: bool) -> None:
    assert carries_secret(text) is carries


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("/srv/git/a.git", "/srv//git/a.git/", True),
        ("/srv/git/a", "/srv/git/a/.git", True),
        ("/srv/git/a.git", "file:///srv/git/a%2Egit", True),
        ("file:///srv/a", "file://localhost/srv/a", True),
        ("/srv/git/a.git", "/srv/git/a", False),  # two folders may lie there
        ("/srv/git/a.git", "/srv/git/A.git", False),
        ("git@host:lab/a.git", "ssh://git@HOST:22/lab/a", True),
        ("git@host:lab/a.git", "https://host:443/lab/a/", True),
        ("git@host:lab/a.git", "git@host:lab/b.git", False),
        ("ann@host:a.git", "bob@host:a.git", False),  # in their homes
        ("ssh://git@host:2222/a", "ssh://git@host/a", False),
        ("https://host/a", "https://other/a", False),
    ],
)
def test_two_ways_to_write_one_repository(one: str, other: str, same: bool) -> None:
    assert (place_of(one) == place_of(other)) is same
