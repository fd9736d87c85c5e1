"""Answers held against the description of their API, with nothing in them that it does not name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import httpx
import jsonschema
import referencing
from referencing.jsonschema import DRAFT202012

URI = "described:"


class Described:
    """An OpenAPI or AsyncAPI document as a judge."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._document = document
        schemas = {name: close(schema) for name, schema in document["components"]["schemas"].items()}
        whole = {**document, "components": {"schemas": schemas}}
        resource = referencing.Resource.from_contents(whole, default_specification=DRAFT202012)
        self._registry: referencing.Registry[Any] = referencing.Registry().with_resource(URI, resource)

    def check(self, value: Any, schema: Any) -> None:
        """Check that a value fits a schema of the document."""
        pointed = json.loads(json.dumps(schema).replace('"$ref": "#', f'"$ref": "{URI}#'))
        jsonschema.Draft202012Validator(pointed, registry=self._registry).validate(value)

    def check_answer(self, method: str, path: str, answer: httpx.Response) -> None:
        """Check that an answer's body is what the operation says of its status."""
        responses = self._document["paths"][path][method]["responses"]
        response = responses.get(str(answer.status_code)) or responses["default"]
        media = answer.headers["content-type"].partition(";")[0]
        self.check(answer.json(), response["content"][media]["schema"])

    def check_frame(self, method: str, path: str, frame: Mapping[str, Any]) -> None:
        """Check that a frame of a stream, and what its data says, is one of those that the operation names."""
        content = self._document["paths"][path][method]["responses"]["200"]["content"]["text/event-stream"]
        kinds = content["x-itemSchema"].get("oneOf", [content["x-itemSchema"]])
        (kind,) = [kind for kind in kinds if kind["properties"]["event"]["const"] == frame["event"]]
        self.check(frame, kind)
        self.check(json.loads(frame["data"]), kind["properties"]["data"]["contentSchema"])


def close(schema: Any) -> Any:
    """Return a schema whose objects have no members but those that it names."""
    if isinstance(schema, list):
        return [close(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: close(value) for key, value in schema.items()}
    # A refusal has the facts of its case beside the members that all have.
    is_open = schema.get("title") == "Problem"
    if not is_open and schema.get("type") == "object" and isinstance(schema.get("properties"), dict):
        closed.setdefault("additionalProperties", False)
    return closed
