"""A small catalogue in the original's form, and the original's own."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from mao_registry.catalogue.entries import Catalogue, read_catalogue
from mao_shared.clients.catalogue import parse_parts
from mao_shared.models.catalogue import CatalogueContent

MARKETPLACE = Path(__file__).resolve().parents[4] / "shared/data/marketplace"
PLACEHOLDER = "{{ MAO_PRIVATE_VARIABLE }}"
Document = dict[str, Any]

LAB: Document = {
    "tools": [
        {"name": "crawler", "author": "lab", "image": "lab/crawler:1.4", "data_repo": "…", "artefact": "x"},
        {"name": "summary", "author": "lab", "image": "lab/summary:2", "description": "Sums up."},
        {"name": "hub", "image": "lab/hub", "env": {"TOKEN": PLACEHOLDER}},
    ],
    "pipelines": [
        {
            "name": "Hub survey",
            "description": "Lists what the hub has, and sums it up.",
            "steps": [
                {
                    "name": "acquire",
                    "tool": "crawler",
                    "cmd": ["--all"],
                    "env": {"DEPTH": 3, "QUICK": True},
                    "docker_socket": False,
                    "input_dataset": None,
                    "output_dataset": "raw",
                },
                {"name": "sum up", "tool": "summary", "input_dataset": "raw", "output_dataset": "sums"},
            ],
        },
        {
            "name": "with-secret",
            "steps": [{"tool": "crawler", "output_dataset": "raw", "env": {"API_KEY": PLACEHOLDER}}],
        },
        {"name": "unknown-tool", "steps": [{"tool": "nobody-has-it", "output_dataset": "raw"}]},
        {"name": "rooted", "steps": [{"tool": "crawler", "output_dataset": "raw", "docker_socket": True}]},
        {"name": "by-tool", "steps": [{"tool": "hub", "output_dataset": "raw"}]},
    ],
    "datasets": [{"name": "sums", "description": "What the crawler found, in short."}],
    "federations": [
        {"name": "Hub Observatory", "contacts": ["ada@example.org"], "description": "We watch hubs."}
    ],
}


def lab(**changes: Any) -> CatalogueContent:
    """Return the small catalogue with lists replaced."""
    return CatalogueContent.model_validate(copy.deepcopy(LAB) | changes)


def read_lab(**changes: Any) -> Catalogue:
    return read_catalogue("lab", lab(**changes))


def original_content() -> CatalogueContent:
    """Return the original's marketplace; skip the test where it is absent."""
    if not MARKETPLACE.is_dir():
        pytest.skip(f"the original's marketplace is not at {MARKETPLACE}")
    return parse_parts({path.stem: path.read_bytes() for path in sorted(MARKETPLACE.glob("*.json"))})
