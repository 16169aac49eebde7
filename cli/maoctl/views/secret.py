"""Table of the secrets for tools."""

from __future__ import annotations

from typing import TYPE_CHECKING

from maoctl.output import Column, TableView
from maoctl.text import relative

if TYPE_CHECKING:
    from mao_shared.models import secret

SECRET: TableView[secret.SecretState] = TableView(
    "secret",
    [
        Column("NAME", lambda secret, _: secret.name, keep_whole=True),
        Column("USED BY", lambda secret, _: secret.used_by or "(none)"),
        Column(
            "CHANGED",
            lambda secret, now: relative(secret.changed_at, now),
            keep_whole=True,
            sort=lambda secret: secret.changed_at,
        ),
        Column("CREATED", lambda secret, _: secret.created_at, wide=True),
    ],
    lambda secret: secret.name,
    lambda secret: secret.changed_at,
)
