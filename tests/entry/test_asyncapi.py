"""The description of all that streams: valid, complete, and true of what really is sent.

`asyncapi-3.0.0.schema.json` is the AsyncAPI Initiative's schema of the format (Apache License 2.0), without its prose.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from gateway.app import DIALECTS
from tests.dialects.native.streaming import read_stream
from tests.support.described import Described
from tests.support.native import accepted, ask
from tests.support.running import COMPLETE, LOG, RunningGateway
from tests.support.sockets import open_socket

pytestmark = pytest.mark.anyio

STREAMS = [
    ("", "/v1/runs/{run_id}/stream", "?snapshot=true"),
    ("", "/v1/runs/{run_id}/stream", "?after=1000-1"),
    ("", "/v1/runs/{run_id}/stream/chunks", ""),
    ("/compat/threads", "/v1/runs/{run_id}/events", ""),
    ("/compat/jobs", "/v1/runs/{run_id}/stream", ""),
    ("/compat/jobs", "/v1/runs/{run_id}/stream/chunks", ""),
]
FORMAT = json.loads((Path(__file__).parent / "asyncapi-3.0.0.schema.json").read_text())


async def read_document(api: RunningGateway) -> dict[str, Any]:
    """Return the description that is served."""
    return accepted(await api.client.get("/asyncapi.json"))


async def test_the_document_is_valid_asyncapi(api: RunningGateway) -> None:
    """Version 3, by the schema of the format itself; every reference leads somewhere."""
    document = await read_document(api)
    assert document["asyncapi"] == "3.0.0"
    jsonschema.validate(document, FORMAT)
    for reference in find_references(document):
        place: Any = document
        for step in reference.removeprefix("#/").split("/"):
            place = place[step.replace("~1", "/")]


def find_references(value: Any) -> list[str]:
    """Return what a document refers to within itself."""
    if isinstance(value, list):
        return [found for each in value for found in find_references(each)]
    if not isinstance(value, dict):
        return []
    mine = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
    return mine + [found for each in value.values() for found in find_references(each)]


async def test_every_stream_of_every_api_is_in_it(api: RunningGateway) -> None:
    """Each operation that OpenAPI describes as a stream is a channel, and so is the WebSocket."""
    addresses = {channel["address"] for channel in (await read_document(api))["channels"].values()}
    expected = {"/v1/ws"}
    for place in ("", *(f"/compat/{name}" for name in DIALECTS)):
        paths = accepted(await api.client.get(f"{place}/openapi.json"))["paths"]
        expected |= {
            place + path
            for path, methods in paths.items()
            for operation in methods.values()
            if "text/event-stream" in operation["responses"].get("200", {}).get("content", {})
        }
    assert addresses == expected
    assert len(addresses) > 8


async def test_the_websocket_speaks_as_described(api: RunningGateway) -> None:
    """Commands that it takes, and every frame that comes of them, fit what the document says of them."""
    document = await read_document(api)
    messages = document["channels"]["native_ws"]["messages"]
    described = Described(document)
    run_id = (await api.create_run())["id"]
    commands: list[dict[str, Any]] = [
        {"type": "subscribe", "id": "c1", "run_id": run_id, "snapshot": True},
        {"type": "append", "id": "c2", "run_id": run_id, "events": [{"type": LOG[0], "data": LOG[1]}]},
        {"type": "pause", "id": "c3", "run_id": run_id},
        {"type": "resume", "id": "c4", "run_id": run_id},
        {"type": "input", "id": "c5", "run_id": run_id, "content": 1},
        {"type": "ping", "id": "c6"},
        {"type": "unsubscribe", "id": "c7", "run_id": run_id},
        {"type": "subscribe", "id": "c8", "run_id": run_id, "after": "1000-1"},
        {"type": "cancel", "id": "c9", "run_id": run_id, "force": True},
    ]
    seen: set[str] = set()
    async with open_socket(api) as socket:
        for command in commands:
            described.check(command, messages[command["type"]]["payload"])
            members = {name: value for name, value in command.items() if name != "type"}
            await socket.send(command["type"], **members)
            while True:
                frame = await socket.next()
                seen.add(frame["type"])
                described.check(frame, messages[frame["type"].replace(".", "_")]["payload"])
                if frame.get("id") == command["id"]:
                    break
    assert seen >= {"ack", "error", "pong", "event", "stream.open", "stream.snapshot", "stream.reset"}


async def test_sse_frames_fit_their_description(api: RunningGateway) -> None:
    """Every frame of streams of the native API and of dialects, checked as a tool would, by `x-itemSchema`."""
    run = await api.create_run(thread_id="described")
    accepted(await api.append(run["id"], LOG, ("message.delta", {"content": "a"})))
    asked = await ask(api, run["id"])
    accepted(await api.client.post(f"/v1/runs/{run['id']}/input", json={"content": 1, "request_id": asked}))
    accepted(await api.append(run["id"], COMPLETE))
    checked = 0
    for place, path, query in STREAMS:
        described = Described(accepted(await api.client.get(f"{place}/openapi.json")))
        stream = await read_stream(api, place + path.format(run_id=run["id"]) + query)
        assert stream.status == 200, (path, stream.body)
        assert stream.parser.frames
        for frame in stream.parser.frames:
            data = json.dumps(frame.data)
            described.check_frame("get", path, {"id": frame.last_id, "event": frame.name, "data": data})
            checked += 1
    assert checked > 20
