"""Example bodies for the API pages; the first of each is the seed's."""

from __future__ import annotations

from fastapi.openapi.models import Example

Examples = dict[str, Example]

TOOLS: Examples = {
    "seed": {
        "summary": "As the seed's client sends it",
        "value": {
            "name": "crawler",
            "author": "lab",
            "image": "ghcr.io/lab/crawler:1.4",
            "data_repo": "https://git.example.org/lab/data",
            "code_repo": "https://git.example.org/lab/crawler",
            "artefact": "helm-charts",
        },
    },
    "limits": {
        "summary": "With command, environment, limits and a privilege",
        "value": {
            "name": "scanner",
            "author": "lab",
            "image": "ghcr.io/lab/scanner:2",
            "command": ["scan", "--all"],
            "env": {"DEPTH": "3"},
            "limits": {"cpu": 2, "memory": "2g", "pids": 200, "time": "30m"},
            "privileges": {"capabilities": ["NET_RAW"]},
        },
    },
}
DATASETS: Examples = {
    "seed": {
        "summary": "As the seed's README has it",
        "value": {
            "name": "helm-charts",
            "body": {"master": "git@git.example.org:mao/helm-charts.git", "nodes": []},
        },
    },
    "flat": {
        "summary": "Flat, with a description",
        "value": {
            "name": "performance",
            "master": "/srv/git/performance.git",
            "description": "What the nodes measure of themselves",
        },
    },
}
_STEPS = [
    {"tool": "crawler", "dataset": "helm-charts"},
    {"tool": "scanner", "dataset": "findings", "input_dataset": "helm-charts"},
]
PIPELINES: Examples = {
    "steps": {"summary": "Two steps", "value": {"name": "crawl-and-scan", "steps": _STEPS}},
}
INIT: Examples = {
    "seed": {
        "summary": "As the seed's README has it: the pipeline bears the tool's name",
        "value": {"tool": "crawler", "dataset": "helm-charts"},
    },
    "steps": {
        "summary": "Two steps, a privilege granted",
        "value": {"name": "crawl-and-scan", "steps": _STEPS, "agree": ["capability NET_RAW"]},
    },
}
