"""AsyncAPI 3 of everything that streams: each SSE response of each API, and WebSockets."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from gateway import __version__
from gateway.entry.openapi import SECURITY, TICKET, Shapes, query_parameters
from gateway.entry.operations import Frames, Operation

HTTP, WS = "http", "websocket"
# Where it listens is for its operator to say; a reader fills it in.
HOST: Final = {"host": {"default": "127.0.0.1:8000", "description": "Where the gateway listens."}}
DESCRIPTION: Final = (
    "Every stream of the gateway. SSE messages are frames: `message` is one without a name, another's name is its "
    "`event:` field; each event's `id:` is the cursor that `Last-Event-ID` resumes after."
)


class Socket(msgspec.Struct, frozen=True):
    """A WebSocket: what clients send and what they get, each by the value of its member `type`."""

    path: str
    commands: Mapping[str, Any]
    frames: Mapping[str, Any]


class Speaker(msgspec.Struct, frozen=True):
    """An API with streams; `prefix` stands before its paths."""

    name: str
    prefix: str
    operations: Sequence[Operation]
    sockets: Sequence[Socket] = ()


def document(speakers: Sequence[Speaker]) -> dict[str, Any]:
    """Return the document."""
    channels: dict[str, Any] = {}
    operations: dict[str, Any] = {}
    schemas: dict[str, Any] = {}
    for speaker in speakers:
        shapes = Shapes(_types(speaker), f"#/components/schemas/{speaker.name}.{{name}}")
        schemas |= {f"{speaker.name}.{name}": schema for name, schema in shapes.components.items()}
        for operation in speaker.operations:
            for frames in operation.streams:
                name = f"{speaker.name}_{operation.id}"
                channels[name] = _stream(speaker, operation, frames, shapes)
                operations[name] = _says(name, "send", channels[name]["messages"], operation.summary)
        for socket in speaker.sockets:
            name = f"{speaker.name}_{socket.path.rpartition('/')[2]}"
            channels[name] = _socket(speaker, socket, shapes)
            for action, kinds in (("receive", socket.commands), ("send", socket.frames)):
                operations[f"{name}_{action}"] = _says(name, action, [_key(kind) for kind in kinds], None)
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "Run gateway: streams", "version": __version__, "description": DESCRIPTION},
        "defaultContentType": "application/json",
        "servers": {
            HTTP: {"host": "{host}", "protocol": "http", "variables": HOST, "security": _security()},
            WS: {"host": "{host}", "protocol": "ws", "variables": HOST, "security": _security()},
        },
        "channels": channels,
        "operations": operations,
        "components": {"schemas": schemas, "securitySchemes": _schemes()},
    }


def _schemes() -> dict[str, Any]:
    found = {**SECURITY, "ticket": TICKET}
    # What OpenAPI calls an API key in a header or a query, AsyncAPI does of HTTP alone.
    return {name: scheme | ({"type": "httpApiKey"} if "in" in scheme else {}) for name, scheme in found.items()}


def _security() -> list[dict[str, str]]:
    return [{"$ref": f"#/components/securitySchemes/{name}"} for name in (*SECURITY, "ticket")]


def _types(speaker: Speaker) -> list[Any]:
    found: list[Any] = []
    for operation in speaker.operations:
        for frames in operation.streams:
            found += [frames.item, *frames.named.values()]
    for socket in speaker.sockets:
        found += [*socket.commands.values(), *socket.frames.values()]
    return found


def _stream(speaker: Speaker, operation: Operation, frames: Frames, shapes: Shapes) -> dict[str, Any]:
    channel = _channel(HTTP, speaker.prefix + operation.path)
    kinds = {"message": frames.item, **frames.named}
    channel["messages"] = {_key(name): _message(name, kind, shapes) for name, kind in kinds.items()}
    channel["summary"] = operation.summary
    if operation.about.query is not None:
        query = {each["name"]: each.get("schema", {}) for each in query_parameters(operation.about.query)}
        channel["bindings"] = {"http": {"x-method": operation.method, "x-query": query}}
    return channel


def _socket(speaker: Speaker, socket: Socket, shapes: Shapes) -> dict[str, Any]:
    channel = _channel(WS, speaker.prefix + socket.path)
    kinds = {**socket.commands, **socket.frames}
    channel["messages"] = {_key(name): _message(name, kind, shapes) for name, kind in kinds.items()}
    query = {"type": "object", "properties": {"ticket": {"type": "string"}}}
    channel["bindings"] = {"ws": {"method": "GET", "query": query}}
    return channel


def _channel(server: str, address: str) -> dict[str, Any]:
    channel: dict[str, Any] = {"address": address, "servers": [{"$ref": f"#/servers/{server}"}]}
    variables = re.findall(r"{([a-z_]+)}", address)
    return channel | ({"parameters": {name: {} for name in variables}} if variables else {})


def _message(name: str, kind: Any, shapes: Shapes) -> dict[str, Any]:
    return {"name": name, "contentType": "application/json", "payload": shapes.of(kind)}


def _says(channel: str, action: str, keys: Sequence[str] | Mapping[str, Any], summary: str | None) -> dict[str, Any]:
    messages = [{"$ref": f"#/channels/{channel}/messages/{key}"} for key in keys]
    said = {"action": action, "channel": {"$ref": f"#/channels/{channel}"}, "messages": messages}
    return said | ({"summary": summary} if summary else {})


def _key(name: str) -> str:
    return name.replace(".", "_")
