"""Messages of servers about a push: lost races and refusals are told apart."""

from __future__ import annotations

from pathlib import Path

import pygit2
import pytest

from mao_datamgmt.datasets import clones
from mao_datamgmt.datasets.delivery import push_branches
from mao_git import Clone
from mao_git.errors import RemoteMoved
from mao_git.remotes.errors import branch_refusal, network_error
from mao_shared.errors import Forbidden
from tests.datamgmt.test_races import commit
from tests.datamgmt.world import NODE, context_for
from tests.support.git import bare_repository, git
from tests.support.sshd import ssh_server

LOST_RACES = [
    "non-fast-forward",
    "fetch first",
    "cannot lock ref 'refs/heads/node-1': is at 1111111 but expected 2222222",
    "incorrect old value provided: is at 1111111 but expected 2222222",
    "failed to update ref",
    "stale info",
    "reference already exists",
]
REFUSALS = [
    "pre-receive hook declined",
    "hook declined",
    "protected branch hook declined",
    "push declined due to repository rule violations",
    "disk quota exceeded",
    "update hook declined: the clock is stale info",
    "no space for a block",
]


@pytest.mark.parametrize("words", LOST_RACES)
def test_refusal_of_a_lost_race(words: str) -> None:
    assert isinstance(branch_refusal("ssh://x/y", NODE, words), RemoteMoved)


@pytest.mark.parametrize("words", LOST_RACES[:1] + LOST_RACES[2:3] + LOST_RACES[5:])
def test_to_error_of_a_lost_race(words: str) -> None:
    assert isinstance(network_error(pygit2.GitError(words), "ssh://x/y"), RemoteMoved)


@pytest.mark.parametrize("words", REFUSALS)
def test_refusal_of_a_branch(words: str) -> None:
    refused = branch_refusal("ssh://x/y", NODE, words)
    assert isinstance(refused, Forbidden)
    assert refused.code == "push-refused"
    assert words in refused.detail


@pytest.mark.sshd
def test_push_refused_by_a_hook_keeps_the_commit(tmp_path: Path) -> None:
    remote = bare_repository(tmp_path / "remote.git")
    with ssh_server(tmp_path / "sshd") as server:
        context = context_for(tmp_path, ssh_dir=server.key_dir)
        clones.ensure_clone(context, "data", server.url(remote))
        hook = remote / "hooks" / "pre-receive"
        hook.parent.mkdir(exist_ok=True)
        hook.write_text("#!/bin/sh\necho 'quota exceeded' >&2\nexit 1\n")
        hook.chmod(0o755)
        commit(context, "a")
        clone = Clone.open(context.data.clone("data"))
        failure = push_branches(context, clone, promote=True).failure
        assert failure is not None
        assert failure.code == "push-refused"
        assert git(remote, "rev-list", "--count", NODE) == "1"
        hook.unlink()
        assert push_branches(context, clone, promote=True).pushed
        assert git(remote, "rev-list", "--count", NODE) == "2"
