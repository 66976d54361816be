"""The OpenAPI document, of models and of JSON Schema files: every reference leads somewhere, no name hides another."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from pipeline.codec import Codec
from pipeline.gateway.document import document
from pipeline.topology.load import load_topology

MODELS = """
from collections.abc import Callable
from pydantic import BaseModel


class Line(BaseModel):
    sku: str
    parts: list["Line"] = []


class Order(BaseModel):
    lines: list[Line]
    more: "Order | None" = None


class Odd(BaseModel):
    call: Callable[[], int]
"""
SCHEMA = {
    "$id": "https://shop.example/stock.json",
    "$defs": {"sku": {"type": "string"}, "tree": {"type": "array", "items": {"$ref": "#/$defs/tree"}}},
    "type": "object",
    "properties": {
        "sku": {"$ref": "#/$defs/sku"},
        "tree": {"$ref": "#/$defs/tree"},
        "whole": {"$ref": "#"},
        "named": {"$anchor": "here", "type": "string"},
        "again": {"$ref": "#here"},
        "$ref": {"type": "string"},
    },
}
TOPOLOGY = """
version: 1
exchanges:
  events: {type: topic}
events:
  order.created: {exchange: events, model: "document_models:Order"}
  order.odd: {exchange: events, model: "document_models:Odd"}
  stock.counted: {exchange: events, schema: stock.json}
  anything: {exchange: events, schema: yes.json}
  note.taken: {exchange: events}
  Problem: {exchange: events}
  CloudEvent: {exchange: events}
"""


@pytest.fixture
def described(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    (tmp_path / "document_models.py").write_text(MODELS)
    (tmp_path / "stock.json").write_text(json.dumps(SCHEMA))
    (tmp_path / "yes.json").write_text("true")
    (tmp_path / "topology.yaml").write_text(TOPOLOGY)
    monkeypatch.syspath_prepend(tmp_path)
    topology = load_topology(tmp_path / "topology.yaml").topology
    found = document(FastAPI(title="t", version="1"), topology, Codec(topology, 1000))
    text: dict[str, Any] = json.loads(json.dumps(found))
    return text


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from references(each)


def test_every_reference_leads_somewhere(described: dict[str, Any]) -> None:
    found = set(references(described))
    assert "#here" in found  # an anchor, which is found by its name
    for reference in found - {"#here"}:
        assert reference.startswith("#/")
        there: Any = described
        for part in reference[2:].split("/"):
            there = there[part.replace("~1", "/").replace("~0", "~")]


def test_schemas_lead_into_themselves(described: dict[str, Any]) -> None:
    schemas = described["components"]["schemas"]
    at = "#/components/schemas/stock.counted"
    properties = schemas["stock.counted"]["properties"]
    assert properties["sku"] == {"$ref": f"{at}/$defs/sku"}
    assert properties["whole"] == {"$ref": at}
    assert properties["$ref"] == {"type": "string"}
    assert "$id" not in schemas["stock.counted"]
    line = schemas["order.created"]["$defs"]["Line"]
    assert line["properties"]["parts"]["items"] == {"$ref": "#/components/schemas/order.created/$defs/Line"}
    assert schemas["anything"] is True


def test_each_type_has_its_own_schema_whatever_it_is_called(described: dict[str, Any]) -> None:
    schemas, paths = described["components"]["schemas"], described["paths"]
    assert schemas["Problem"]["required"] == ["type", "title", "status", "detail"]
    names, operations = set(), set()
    for kind in ("order.created", "order.odd", "stock.counted", "anything", "note.taken", "Problem", "CloudEvent"):
        operation = paths[f"/events/{kind}"]["post"]
        names.add(operation["requestBody"]["content"]["application/json"]["schema"]["$ref"])
        operations.add(operation["operationId"])
    assert len(names) == len(operations) == 7
    assert "#/components/schemas/Problem" not in names
