"""Paths with a title in them: `{name:title}` takes slashes too, but not nothing.

To be imported where such a route is made: a converter has to be known by then. `{id:job_title}` leaves the
verbs of a job, such as `/jobs/x/pause`, to their own routes.
"""

from __future__ import annotations

from typing import Final

from starlette.convertors import Convertor, register_url_convertor

TITLE: Final = "title"
JOB_TITLE: Final = "job_title"


class _TitleConvertor(Convertor[str]):
    regex = ".+"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


class _JobTitleConvertor(_TitleConvertor):
    regex = "(?!.*/(?:pause|resume|backfill|next)$).+"


register_url_convertor(TITLE, _TitleConvertor())
register_url_convertor(JOB_TITLE, _JobTitleConvertor())
