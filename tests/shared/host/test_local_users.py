"""Users that the gateway admits without a token, by the settings."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from mao_shared.errors import InvalidInput
from mao_shared.host.sockets import allowed_users
from tests.support.users import SOMEBODY, needs_root

DAEMON = pwd.getpwnam("daemon").pw_uid


@pytest.mark.parametrize(
    ("names", "more"),
    [
        ("", set()),
        (" , ", set()),
        ("1001", {1001}),
        ("daemon", {DAEMON}),
        (" daemon ,1001,", {DAEMON, 1001}),
        ("root,0", {0}),
    ],
)
def test_allowed_users_root_our_own_user_and_those_that_are_named(names: str, more: set[int]) -> None:
    assert allowed_users(names, None) == {0, os.geteuid(), *more}


@needs_root
def test_allowed_users_owner_of_the_file_takes_the_place_of_our_own_user(tmp_path: Path) -> None:
    file = tmp_path / "compose.yaml"
    file.touch()
    os.chown(file, SOMEBODY, SOMEBODY)
    assert allowed_users("1001", file) == {0, SOMEBODY, 1001}


@pytest.mark.parametrize("names", ["no-such-user", "daemon;root", "-1", "1.5", "²", "*"])
def test_allowed_users_user_that_is_none_is_refused(names: str) -> None:
    with pytest.raises(InvalidInput, match="MAO_LOCAL_USERS") as refused:
        allowed_users(names, None)
    assert refused.value.code == "local-users-invalid"
    assert refused.value.next


def test_allowed_users_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="MAO_OWNER_OF"):
        allowed_users("", tmp_path / "none")
