"""Descriptions of the APIs: valid, complete, of the very routes that are served, and readable without the world."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx
import pytest
from openapi_spec_validator import validate
from starlette.routing import Mount, Route

from gateway.app import DIALECTS
from gateway.dialects.native.described import TABLE
from gateway.dialects.native.routes import api_routes
from tests.support.running import RunningGateway

pytestmark = pytest.mark.anyio

PLACES = ["", *(f"/compat/{name}" for name in DIALECTS)]
METHODS = {"get", "post", "put", "delete"}
# A WebSocket that is asked for without one; what it says is in the AsyncAPI document.
ELSEWHERE = {"GET /v1/ws"}


async def read_document(api: RunningGateway, place: str) -> dict[str, Any]:
    """Return the description that is served at a place, to anybody."""
    async with httpx.AsyncClient(base_url=api.url) as anybody:
        answer = await anybody.get(f"{place}/openapi.json")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    document: dict[str, Any] = answer.json()
    return document


@pytest.mark.parametrize("place", PLACES)
async def test_each_document_is_valid_openapi(api: RunningGateway, place: str) -> None:
    """Version 3.1, by its own schema; every operation says what it does, who may refuse it and how."""
    document = await read_document(api, place)
    validate(document)
    assert document["openapi"] == "3.1.0"
    assert document["info"]["description"]
    assert document["servers"] == [{"url": place or "/"}]
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert method in METHODS
            assert operation["summary"], (method, path)
            assert operation["responses"].keys() >= {"401", "403", "default"}


@pytest.mark.parametrize("place", PLACES)
async def test_patterns_are_those_of_any_language(api: RunningGateway, place: str) -> None:
    """No anchor of Python's own is told to readers of other languages."""
    text = json.dumps(await read_document(api, place))
    assert r"\\Z" not in text
    assert r"\\A" not in text


def test_every_native_route_is_described_and_every_description_is_of_a_route(api: RunningGateway) -> None:
    """A route without a description, or a description without a route, fails here."""
    served = {
        f"{method} {route.path}"
        for route in api_routes(api.gateway.services)
        if isinstance(route, Route)
        for method in (route.methods or set()) - {"HEAD"}
    }
    assert TABLE.keys() == served - ELSEWHERE


async def test_every_native_parameter_is_described_and_every_description_is_of_a_parameter(
    api: RunningGateway,
) -> None:
    """Each operation, asked with a parameter that there is none of, names those that it takes."""
    document = await read_document(api, "")
    run_id = (await api.create_run())["id"]
    for template, methods in document["paths"].items():
        if template == "/files/{file_id}":
            # A signed address only says whether its signature is good.
            continue
        path = template.replace("{run_id}", run_id)
        for method, operation in methods.items():
            described = {each["name"] for each in operation["parameters"] if each["in"] == "query"}
            takes = await read_parameters(api, method, path)
            if template == "/v1/runs/{run_id}/events" and method == "get":
                takes |= await read_parameters(api, method, path, accept="text/event-stream")
            assert described == takes, (method, template)


async def read_parameters(api: RunningGateway, method: str, path: str, **headers: str) -> set[str]:
    """Return the parameters that an operation says it takes; a ticket is a credential."""
    filled = re.sub(r"{[a-z_]+}", "any", path)
    answer = await api.client.request(method, filled, params={"no_such": "1"}, headers=headers)
    assert answer.status_code == 400, (method, path, answer.text)
    assert "no_such" in answer.json()["detail"]
    return set(answer.json()["allowed"]) - {"ticket"}


async def test_a_dialect_s_document_is_of_all_of_its_routes(api: RunningGateway) -> None:
    """What is mounted and what is described are the same list."""
    mounts = [route for route in api.gateway.asgi.routes if isinstance(route, Mount)]  # type: ignore[attr-defined]
    for place in PLACES[1:]:
        (mount,) = [mount for mount in mounts if mount.path == place]
        served = {
            (method.lower(), route.path)
            for route in mount.routes
            if isinstance(route, Route) and route.include_in_schema
            for method in (route.methods or set()) - {"HEAD"}
        }
        paths = (await read_document(api, place))["paths"]
        assert {(method, path) for path, methods in paths.items() for method in methods} == served


@pytest.mark.parametrize("place", PLACES)
async def test_the_reference_page_needs_nothing_from_elsewhere(api: RunningGateway, place: str) -> None:
    """Page, style and script are the gateway's own, and a policy forbids the browser anything else."""
    async with httpx.AsyncClient(base_url=api.url) as anybody:
        for path, media in (("docs", "text/html"), ("docs/page.js", "text/javascript"), ("docs/page.css", "text/css")):
            answer = await anybody.get(f"{place}/{path}")
            assert answer.status_code == 200
            assert answer.headers["content-type"].startswith(media)
            assert "default-src 'self'" in answer.headers["content-security-policy"]
            assert "//" not in re.sub(r"^\s*//.*$", "", answer.text, flags=re.M).replace("</", "")
