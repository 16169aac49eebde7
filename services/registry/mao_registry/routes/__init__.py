"""The registry's HTTP API, one module per noun; the three kinds of records share `records.py`."""

from __future__ import annotations

from mao_shared.models import Dataset, Pipeline, Tool
from mao_shared.web.api_pages import make_routes

from . import catalogue, federation, nodes, pipelines
from .records import DATASETS, PIPELINES, TOOLS, collection_router

ROUTES = make_routes(
    "registry",
    [
        collection_router("tools", Tool, lambda registry: registry.tools, TOOLS),
        collection_router("datasets", Dataset, lambda registry: registry.datasets, DATASETS),
        collection_router("pipelines", Pipeline, lambda registry: registry.pipelines, PIPELINES),
        catalogue.router,
        nodes.presence_router,
        pipelines.pipelines_router,
        pipelines.consent_router,
        nodes.peers_router,
        pipelines.enrolments_router,
        federation.router,
        nodes.store_router,
    ],
)
