"""The registry's HTTP API: thin, one file a noun; three kinds of records share `catalogue.py`."""

from __future__ import annotations

from fastapi import APIRouter

from mao_shared.models import Dataset, Pipeline, Tool

from . import consent, enrolments, federation, nodes, pipelines, seeing, store
from .catalogue import catalogue_router
from .records import DATASETS, PIPELINES, TOOLS


def routers() -> list[APIRouter]:
    return [
        catalogue_router("tools", Tool, lambda registry: registry.tools, TOOLS),
        catalogue_router("datasets", Dataset, lambda registry: registry.datasets, DATASETS),
        catalogue_router("pipelines", Pipeline, lambda registry: registry.pipelines, PIPELINES),
        nodes.router,
        pipelines.router,
        consent.router,
        seeing.router,
        enrolments.router,
        federation.router,
        store.router,
    ]
