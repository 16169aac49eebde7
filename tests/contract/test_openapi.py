"""The OpenAPI documents: valid, described, and with examples that their own schemas accept."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import pytest
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from mao_gateway.openapi import merge
from mao_shared.settings import SERVICES
from mao_shared.web.api_document import TAGS, operations

from .test_services import app_of

Document = dict[str, Any]


@functools.cache
def combined() -> Document:
    """The document of a node all of whose services answer."""
    return merge(app_of("gateway").openapi(), {name: app_of(name).openapi() for name in SERVICES})


def faults(document: Document) -> list[str]:
    found = OpenAPIV31SpecValidator(document).iter_errors()
    return [f"{'/'.join(map(str, error.absolute_path))}: {error.message[:200]}" for error in found]


def test_openapi_combined_document_is_valid() -> None:
    assert faults(combined()) == []


@pytest.mark.parametrize("service", [*SERVICES, "gateway"])
def test_openapi_document_of_service_is_valid(service: str) -> None:
    assert faults(app_of(service).openapi()) == []


def test_openapi_validator_finds_keyword_of_later_version() -> None:
    stream = {"itemSchema": {"type": "string"}}
    response = {"description": "", "content": {"text/event-stream": stream}}
    operation = {"operationId": "x", "responses": {"200": response}}
    document = {"openapi": "3.1.0", "info": {"title": "", "version": ""}, "paths": {"/x": {"get": operation}}}
    assert any("itemSchema" in fault for fault in faults(document))


def test_openapi_every_tag_is_described_and_used() -> None:
    used = {tag for _, _, operation in operations(combined()) for tag in operation["tags"]}
    assert [tag["name"] for tag in combined()["tags"]] == [tag for tag in TAGS if tag in used]
    assert used == set(TAGS)


def test_openapi_only_health_is_open() -> None:
    schemes = combined()["components"]["securitySchemes"]
    assert {name for choice in combined()["security"] for name in choice} == set(schemes)
    for _, path, operation in operations(combined()):
        is_open = operation.get("security") == []
        assert is_open == (path in ("/livez", "/readyz")), path
        assert is_open or "401" in operation["responses"], path


def test_openapi_problems_are_problem_documents() -> None:
    responses = combined()["components"]["responses"]
    for method, path, operation in operations(combined()):
        for status, response in operation["responses"].items():
            if status >= "4":
                shown = responses[response["$ref"].rpartition("/")[2]] if "$ref" in response else response
                assert list(shown["content"]) == ["application/problem+json"], (method, path, status)


def test_openapi_links_lead_to_operations() -> None:
    known = {operation["operationId"]: operation for _, _, operation in operations(combined())}
    links = [
        link
        for operation in known.values()
        for response in operation["responses"].values()
        for link in response.get("links", {}).values()
    ]
    assert links
    for link in links:
        parameters = {parameter["name"] for parameter in known[link["operationId"]].get("parameters", [])}
        assert set(link.get("parameters", {})) <= parameters


def shown_values() -> Iterator[tuple[str, Document, Any]]:
    """Yield place, schema and value of every example in the combined document."""
    for method, path, operation in operations(combined()):
        bodies = operation.get("requestBody", {}).get("content", {})
        for content in bodies.values():
            for name, example in content.get("examples", {}).items():
                yield f"{method} {path} {name}", content["schema"], example["value"]
        for parameter in operation.get("parameters", []):
            schema = parameter["schema"]
            for value in schema.get("examples", []):
                yield f"{method} {path} {parameter['name']}", schema, value
    for name, schema in combined()["components"]["schemas"].items():
        for field, described in schema.get("properties", {}).items():
            for value in described.get("examples", []):
                yield f"{name}.{field}", described, value


def test_openapi_examples_fit_their_schemas() -> None:
    count = 0
    for place, schema, value in shown_values():
        root = {**schema, "components": combined()["components"]}
        errors = [error.message for error in OAS31Validator(root).iter_errors(value)]
        assert not errors, (place, errors)
        count += 1
    assert count > 100
