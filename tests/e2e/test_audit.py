"""The audit log of a running node."""

from __future__ import annotations

import os
import pwd

import pytest

from tests.support.node import NativeNode

pytestmark = [pytest.mark.docker, pytest.mark.etcd]


def test_audit_names_the_local_user_and_what_maoctl_did(node: NativeNode) -> None:
    node.maoctl("tool", "add", "audited", "A. Scientist", "busybox:1.36", "", "", "x")
    node.maoctl("tool", "remove", "audited", "--yes")
    found = node.http.get("/audit", params={"subject": "audited"}).json()["items"]
    assert [item["action"] for item in found] == ["tools.delete", "tools.create"]
    for item in found:
        assert item["actor"] == pwd.getpwuid(os.geteuid()).pw_name
        assert (item["actor_kind"], item["address"]) == ("local-user", "127.0.0.1")
        assert item["status"] < 400
