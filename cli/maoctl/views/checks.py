"""Tables of the results of data checks, and of quarantined snapshots."""

from __future__ import annotations

from typing import TYPE_CHECKING

from maoctl.output import Column, TableView
from maoctl.text import relative, short_commit

if TYPE_CHECKING:
    from mao_shared.models import check

CHECK_RESULT: TableView[check.CheckResult] = TableView(
    "check-result",
    [
        Column("CHECK", lambda found, _: found.name, keep_whole=True),
        Column("KIND", lambda found, _: found.kind, spare=1),
        Column("RESULT", lambda found, _: "passed" if found.passed else "failed", keep_whole=True),
        Column("ON FAILURE", lambda found, _: found.on_failure, keep_whole=True),
        Column("DETAIL", lambda found, _: found.detail, fold=True),
    ],
    lambda found: found.name,
)


def _failed(found: check.QuarantinedSnapshot) -> str:
    return "; ".join(f"{result.name}: {result.detail}" for result in found.checks if not result.passed)


QUARANTINED: TableView[check.QuarantinedSnapshot] = TableView(
    "quarantine",
    [
        Column("SNAPSHOT", lambda found, _: short_commit(found.commit), keep_whole=True),
        Column("STATE", lambda found, _: found.state, keep_whole=True),
        Column("RUN", lambda found, _: found.run, spare=1),
        Column("STEP", lambda found, _: found.step, spare=2),
        Column(
            "AGE",
            lambda found, now: relative(found.quarantined_at, now),
            keep_whole=True,
            sort=lambda found: found.quarantined_at,
        ),
        Column("PUSHED", lambda found, _: found.pushed, wide=True),
        Column("BY", lambda found, _: found.by, wide=True),
        Column("WHY", lambda found, _: _failed(found)),
    ],
    lambda found: found.commit,
    lambda found: found.quarantined_at,
)
