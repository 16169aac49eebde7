"""The judgement of a dataset's remote, shared with the data manager, which judges again."""

from __future__ import annotations

from mao_shared.git_urls import ALLOWED, carries_password, master_fault

__all__ = ["ALLOWED", "carries_password", "master_fault"]
