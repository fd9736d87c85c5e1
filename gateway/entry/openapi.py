"""OpenAPI 3.1 of a dialect, made of the very structs that decode its requests and encode its answers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

import msgspec

from gateway import __version__
from gateway.entry.operations import Frames, Operation, Raw

SECURITY: Final = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key."},
    "key": {"type": "apiKey", "in": "header", "name": "x-api-key", "description": "An API key."},
}
TICKET: Final = {
    "type": "apiKey",
    "in": "query",
    "name": "ticket",
    "description": "A short-lived ticket, where a browser can send no header.",
}
REPEAT_KEY: Final = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "Makes a repeat of this request be answered as the first time, for 24 hours.",
    "schema": {"type": "string", "pattern": "^[!-~]([ -~]{0,254}[!-~])?$"},
}
LAST_EVENT_ID: Final = {
    "name": "Last-Event-ID",
    "in": "header",
    "description": "The id of the last frame that was seen: the stream goes on after it.",
    "schema": {"type": "string"},
}
# What a path's variable may hold and not be 404 for its shape alone is for the operation to say.
SEGMENT: Final = {"type": "string", "minLength": 1}
ALWAYS: Final = (401, 403)

_VARIABLE = re.compile(r"{([a-z_]+)}")


class Text(msgspec.Struct, frozen=True, kw_only=True):
    """What a document says of the API as a whole.

    Args:
        server: Where its paths begin.
        refusal: The type of the body of every refusal, and its media type.
    """

    title: str
    description: str
    server: str
    refusal: Any
    refusal_media: str = "application/json"


def document(text: Text, operations: Sequence[Operation]) -> dict[str, Any]:
    """Return the document."""
    shapes = Shapes(_types(text, operations))
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        described = _operation(operation, operations, shapes, text)
        paths.setdefault(operation.path, {})[operation.method.lower()] = described
    schemes = SECURITY | ({"ticket": TICKET} if any(map(_takes_tickets, operations)) else {})
    return {
        "openapi": "3.1.0",
        "info": {"title": text.title, "version": __version__, "description": text.description},
        "servers": [{"url": text.server}],
        "security": [{name: []} for name in SECURITY],
        "paths": paths,
        "components": {"schemas": shapes.components, "securitySchemes": schemes},
    }


class Shapes:
    """JSON Schemas of types; structs among them become components that the schemas refer to by `template`."""

    def __init__(self, types: Sequence[Any], template: str = "#/components/schemas/{name}") -> None:
        self._types = list(types)
        schemas, components = msgspec.json.schema_components(self._types, ref_template=template)
        self._schemas = [_portable(schema) for schema in schemas]
        self.components: dict[str, Any] = _portable(components)

    def of(self, kind: Any) -> dict[str, Any]:
        """Return the schema of one of the types."""
        schema: dict[str, Any] = self._schemas[self._types.index(kind)]
        return schema


def sse_item(frames: Frames, shapes: Shapes) -> dict[str, Any]:
    """Return the schema of one frame of a stream, as a reader has it: its fields, data being JSON text."""
    kinds = [_frame(shapes.of(frames.item), None)]
    kinds += [_frame(shapes.of(kind), name) for name, kind in frames.named.items()]
    return kinds[0] if len(kinds) == 1 else {"oneOf": kinds}


def _frame(data: dict[str, Any], name: str | None) -> dict[str, Any]:
    content = {"type": "string", "contentMediaType": "application/json", "contentSchema": data}
    event = {"const": "message" if name is None else name, "description": "`message` is a frame without a name."}
    return {
        "type": "object",
        "properties": {"id": {"type": "string", "description": "A cursor."}, "event": event, "data": content},
        "required": ["event", "data"],
    }


def _types(text: Text, operations: Sequence[Operation]) -> list[Any]:
    found = [text.refusal]
    for operation in operations:
        about = operation.about
        found += [about.body] if about.body is not None else []
        for frames in operation.streams:
            found += [frames.item, *frames.named.values()]
        for status in about.answers:
            found += [kind for kind in operation.answers_of(status) if not isinstance(kind, Frames | Raw | None)]
    return found


def _operation(operation: Operation, operations: Sequence[Operation], shapes: Shapes, text: Text) -> dict[str, Any]:
    about = operation.about
    described: dict[str, Any] = {
        "operationId": operation.id,
        "summary": operation.summary,
        "tags": [operation.tag],
        "parameters": list(_parameters(operation)),
        "responses": dict(_responses(operation, operations, shapes, text)),
    }
    if _takes_tickets(operation):
        described["security"] = [{name: []} for name in (*SECURITY, "ticket")]
    if about.body is not None:
        content = {"application/json": {"schema": shapes.of(about.body)}}
        content |= {media: {"schema": {"type": "string"}} for media in about.other_bodies}
        described["requestBody"] = {"content": content, "required": _is_required(about.body, shapes)}
    return described


def _takes_tickets(operation: Operation) -> bool:
    return operation.about.query is not None and "ticket" in operation.about.query.__struct_fields__


def _is_required(body: Any, shapes: Shapes) -> bool:
    """Whether no body at all, which is read as `{}`, would be refused."""
    reference = shapes.of(body).get("$ref", "")
    return bool(shapes.components.get(reference.rpartition("/")[2], {}).get("required"))


def _parameters(operation: Operation) -> Iterator[dict[str, Any]]:
    for name in _VARIABLE.findall(operation.path):
        yield {"name": name, "in": "path", "required": True, "schema": SEGMENT}
    if operation.about.query is not None:
        yield from query_parameters(operation.about.query)
    for name in operation.about.headers:
        yield {"name": name, "in": "header", "schema": {"type": "string"}}
    if operation.method != "GET":
        yield REPEAT_KEY
    if operation.streams and operation.method == "GET":
        yield LAST_EVENT_ID


def query_parameters(kind: type[msgspec.Struct]) -> Iterator[dict[str, Any]]:
    """Yield a parameter for each field of a query's struct; a ticket is a credential and none of them."""
    (_,), components = msgspec.json.schema_components([kind])
    shape = _portable(components[kind.__name__])
    for name, schema in shape["properties"].items():
        if name == "ticket":
            continue
        told, schema = _without_null(schema)
        parameter = {"name": name, "in": "query", "required": name in shape["required"], "schema": schema}
        if "contentSchema" in schema:
            parameter["content"] = {schema["contentMediaType"]: {"schema": schema["contentSchema"]}}
            del parameter["schema"]
        if schema.get("type") == "array":
            parameter |= {"style": "form", "explode": False}
        yield parameter | ({"description": told} if told else {})


def _without_null(schema: dict[str, Any]) -> tuple[str | None, dict[str, Any]]:
    """Return what a schema says of itself, and the schema of what a query can spell: it cannot spell null."""
    schema = {key: value for key, value in schema.items() if (key, value) != ("default", None)}
    choices = [choice for choice in schema.pop("anyOf", []) if choice != {"type": "null"}]
    if len(choices) == 1:
        schema |= choices[0]
    elif choices:
        schema["anyOf"] = choices
    return schema.pop("description", None), schema


def _responses(
    operation: Operation, operations: Sequence[Operation], shapes: Shapes, text: Text
) -> Iterator[tuple[str, dict[str, Any]]]:
    headers = {
        name: {"description": said, "schema": {"type": "string"}} for name, said in operation.about.tells.items()
    }
    for status in operation.about.answers:
        response: dict[str, Any] = {"description": HTTPStatus(status).phrase}
        content = _contents(operation.answers_of(status), shapes)
        response |= {"content": content} if content else {}
        response |= {"headers": headers} if headers else {}
        links = dict(_links(operation, operations))
        yield str(status), response | ({"links": links} if links else {})
    refusal = {"content": {text.refusal_media: {"schema": shapes.of(text.refusal)}}}
    for status in sorted({*ALWAYS, *operation.about.refusals}):
        yield str(status), {"description": HTTPStatus(status).phrase, **refusal}
    yield "default", {"description": "Any other refusal", **refusal}


def _contents(kinds: Sequence[Any], shapes: Shapes) -> dict[str, dict[str, Any]]:
    """Return each media type of an answer; several types of JSON are alternatives."""
    found: dict[str, dict[str, Any]] = {}
    for media, content in (_content(kind, shapes) for kind in kinds if kind is not None):
        known = found.get(media)
        found[media] = {"schema": {"anyOf": [known["schema"], content["schema"]]}} if known else content
    return found


def _content(kind: Any, shapes: Shapes) -> tuple[str, dict[str, Any]]:
    if isinstance(kind, Frames):
        return "text/event-stream", {"schema": {"type": "string"}, "x-itemSchema": sse_item(kind, shapes)}
    if isinstance(kind, Raw):
        return kind.media, {"schema": {"type": "string"}}
    return "application/json", {"schema": shapes.of(kind)}


def _links(operation: Operation, operations: Sequence[Operation]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield where what an answer names can be used: in the paths of other operations."""
    for variable, pointer in operation.about.makes.items():
        for other in operations:
            if variable in _VARIABLE.findall(other.path):
                parameters = {f"path.{variable}": f"$response.body#{pointer}"}
                yield other.id, {"operationId": other.id, "parameters": parameters}


def _portable(schema: Any) -> Any:
    """Return a schema whose patterns other languages read as well: their `$` is Python's `\\Z`."""
    if isinstance(schema, Mapping):
        return {
            key: value.replace(r"\Z", "$") if key == "pattern" and isinstance(value, str) else _portable(value)
            for key, value in schema.items()
        }
    return [_portable(each) for each in schema] if isinstance(schema, list | tuple) else schema
