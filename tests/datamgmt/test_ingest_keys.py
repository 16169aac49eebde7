"""Keys of external programs: slashes make folders below the key that the dataset declares."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from mao_datamgmt.external.commit import commit_entries
from mao_datamgmt.external.inbox import Inbox, make_entry
from mao_datamgmt.external.ingest import declaring_dataset
from mao_shared.errors import NotFound
from mao_shared.models import Dataset
from mao_shared.models.external import ExternalWrite
from tests.support.git import bare_repository

from .test_external import committed
from .test_external_inbox import NOON
from .world import context_for


@pytest.mark.parametrize("key", ["newtest/file7", "newtest", "newtest/a/b/c", "/newtest/x.y_z"])
async def test_external_key_with_slashes_belongs_to_dataset_of_first_part(tmp_path: Path, key: str) -> None:
    declared = Dataset(name="data", master=str(bare_repository(tmp_path / "m.git")), external=["newtest"])
    assert (
        declaring_dataset(ExternalWrite(key=key, value=1).key, [Dataset(name="x", master="/x"), declared])
        == declared
    )
    context, inbox = context_for(tmp_path), Inbox(tmp_path / "inbox", 10)
    for number in range(2):
        taken = ExternalWrite(key=key, value=number)
        inbox.put("data", make_entry(taken.key, taken.value, NOON, f"{number:08x}", 1000))
    commit_entries(context, "data", declared.master, inbox.take("data", 10, 1000))
    assert committed(context.data.clone("data"), key.removeprefix("/")) == [0, 1]


@pytest.mark.parametrize(
    "key",
    [
        *("", "/", "a//b", "a/", "../a", "a/..", "a/./b", "a/.git", "a\\b", "a/b c", "a/2026-01-31.jsonl"),
        *("/".join("abcdefghi"), "a/" + "x" * 64, "a/-", "//a"),
    ],
)
def test_external_key_invalid_path_is_refused(key: str) -> None:
    with pytest.raises(ValidationError):
        ExternalWrite(key=key, value=1)


def test_external_key_below_undeclared_key_names_the_declaration() -> None:
    with pytest.raises(NotFound, match="'newtest', below which 'newtest/file7' is") as caught:
        declaring_dataset("newtest/file7", [Dataset(name="data", master="/d", external=["other"])])
    assert caught.value.next == "Declare it on one: maoctl dataset external DATASET --key newtest"
