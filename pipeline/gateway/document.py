"""The OpenAPI document. In: what FastAPI knows of the reading routes, and the topology. Out: the whole document.

Publishing is described here: one path for each event type, with the schema of its data.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import PydanticUserError, TypeAdapter

from pipeline.codec import Codec
from pipeline.gateway.cloudevents import BATCH, LINES, STRUCTURED
from pipeline.gateway.problems import MEDIA_TYPE
from pipeline.topology.model import EventType, Topology

JSON = "application/json"
COMPONENT = re.compile(r"[^A-Za-z0-9._-]")
LOCAL = re.compile("#(/|$)")  # what points into its own schema by path; anchors are found wherever they are
OPEN = frozenset({"/healthz", "/readyz"})
REFUSALS = {
    "400": "The request or its data is not as declared; `errors` names the paths",
    "401": "No credentials, or none that are valid",
    "403": "The credentials do not allow it",
    "404": "There is no such thing",
    "408": "The body did not arrive in time",
    "409": "Another event was accepted under this id",
    "413": "The body is too large, or holds too many events",
    "415": "A media type, charset or content coding that is not taken",
    "429": "Too many requests; Retry-After says when",
    "500": "A fault of the gateway",
    "503": "The outbox is full or a database is away; Retry-After says when",
}
PROBLEM = {
    "type": "object",
    "description": "Problem details, RFC 9457",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "description": "urn:pipeline:problem:..."},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["path", "message"],
                "properties": {
                    "path": {"type": "string"},
                    "message": {"type": "string"},
                    "index": {"type": "integer", "minimum": 0, "description": "of a batch's event, from 0"},
                },
            },
        },
    },
}
CLOUDEVENT = {
    "type": "object",
    "description": "A CloudEvent, 1.0, in structured mode",
    "required": ["specversion", "id", "source", "type", "data"],
    "properties": {
        "specversion": {"const": "1.0"},
        "id": {"type": "string", "minLength": 1, "maxLength": 255},
        "source": {"type": "string", "minLength": 1},
        "type": {"type": "string"},
        "time": {"type": "string", "format": "date-time"},
        "subject": {"type": "string", "minLength": 1},
        "data": {},
    },
}
TAKEN = {
    "type": "object",
    "required": ["id", "status"],
    "properties": {"id": {"type": "string"}, "status": {"enum": ["accepted", "repeated"]}},
}
TAKEN_BATCH = {
    "type": "object",
    "required": ["accepted", "repeated", "ids"],
    "properties": {
        "accepted": {"type": "integer"},
        "repeated": {"type": "integer"},
        "ids": {"type": "array", "items": {"type": "string"}},
    },
}
KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "The same key from the same caller is the same event",
    "schema": {"type": "string", "pattern": "^[!-~]{1,255}$"},
}


def document(app: FastAPI, topology: Topology, codec: Codec) -> dict[str, Any]:
    """The whole document, as JSON data."""
    found = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    components = found.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    schemas |= {"Problem": PROBLEM, "CloudEvent": CLOUDEVENT, "Accepted": TAKEN, "AcceptedBatch": TAKEN_BATCH}
    components["responses"] = {status: _problem(text) for status, text in REFUSALS.items()}
    components["securitySchemes"] = {
        "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        "bearer": {"type": "http", "scheme": "bearer", "description": "An API key or a JWT"},
    }
    paths = found.setdefault("paths", {})
    for path, operations in paths.items():
        for operation in operations.values():
            operation["responses"].pop("422", None)
            if path not in OPEN:
                operation["security"] = [{"key": []}, {"bearer": []}]
                operation["responses"] |= _refusals("400", "401", "403", "404", "429", "500", "503")
        if path.startswith("/subscriptions/"):
            operations["get"]["responses"]["200"] = {"description": "The result", "content": {JSON: {"schema": {}}}}
            operations["get"]["responses"]["304"] = {"description": "It is the one you have"}
    paths["/events"] = {"post": _publish("Take events of any types, all or none", "publish_batch", _mixed())}
    for event in topology.events.values():
        name = COMPONENT.sub("_", event.name)
        while name in schemas:  # a/b and a_b, or a type that is called Problem
            name += "_"
        schemas[name] = _schema(event, codec, name)
        content = {JSON: {"schema": _ref(name)}, STRUCTURED: {"schema": _ref("CloudEvent")}}
        content[BATCH] = _mixed()[BATCH]
        content[LINES[0]] = {"schema": {"type": "string", "description": "the data of one event a line"}}
        operation = _publish(f"Take {event.name}", f"publish_{name}", content)
        paths[f"/events/{quote(event.name, safe='')}"] = {"post": operation}
    return found


def _publish(summary: str, operation_id: str, content: dict[str, Any]) -> dict[str, Any]:
    taken = {"schema": {"anyOf": [_ref("Accepted"), _ref("AcceptedBatch")]}}
    return {
        "tags": ["publish"],
        "summary": summary,
        "operationId": operation_id,
        "description": "202 once the events are committed to the outbox; they are published from there.",
        "security": [{"key": []}, {"bearer": []}],
        "parameters": [KEY],
        "requestBody": {"required": True, "content": content},
        "responses": {
            "202": {
                "description": "Accepted, now or before",
                "headers": {
                    "Location": {"description": "where the event can be followed", "schema": {"type": "string"}}
                },
                "content": {JSON: taken},
            },
            **_refusals(*REFUSALS),
        },
    }


def _mixed() -> dict[str, Any]:
    events = {"schema": {"type": "array", "minItems": 1, "items": _ref("CloudEvent")}}
    return {BATCH: events, STRUCTURED: {"schema": _ref("CloudEvent")}}


def _schema(event: EventType, codec: Codec, name: str) -> Any:
    """The schema of an event type's data, its references led into the document."""
    schema: Any
    if event.schema:
        schema = json.loads(Path(event.schema).read_text())
        if isinstance(schema, dict):
            schema.pop("$id", None)  # its references would be looked for there
    else:
        try:
            schema = TypeAdapter(codec.payload(event.name).annotation).json_schema(by_alias=True)
        except PydanticUserError:  # there are types that it validates and has no schema for
            schema = {"description": "The model of this type has no JSON Schema."}
    return _led(schema, f"#/components/schemas/{name}")


def _led(value: Any, to: str) -> Any:
    if isinstance(value, dict):
        return {
            key: to + item[1:] if key == "$ref" and isinstance(item, str) and LOCAL.match(item) else _led(item, to)
            for key, item in value.items()
        }
    return [_led(item, to) for item in value] if isinstance(value, list) else value


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _refusals(*statuses: str) -> dict[str, Any]:
    return {status: {"$ref": f"#/components/responses/{status}"} for status in statuses}


def _problem(text: str) -> dict[str, Any]:
    return {"description": text, "content": {MEDIA_TYPE: {"schema": _ref("Problem")}}}
