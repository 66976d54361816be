"""The JSON Schema (2020-12) of a topology file, for editors. In: `keys.FILE`. Out: JSON data.

It comes from the same definition the reader goes by, so whatever the reader takes is valid under it. The reader is
stricter: names that must be declared, lengths in bytes and keys that exclude each other are beyond the schema.
"""

from __future__ import annotations

from typing import Any

from pipeline.topology.keys import FILE
from pipeline.topology.kinds import (
    Choice,
    Constant,
    Flag,
    Free,
    Kind,
    ListOf,
    MapOf,
    Real,
    Record,
    ScalarKind,
    Size,
    Span,
    Text,
    Whole,
)
from pipeline.topology.scalars import DURATION_PATTERN, SIZE_PATTERN

Schema = dict[str, Any]


def json_schema() -> Schema:
    """The schema of one file."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "pipeline topology",
        "description": "Exchanges, events, subscriptions and plain RabbitMQ objects; all files of a folder are merged.",
        **_schema(FILE),
    }


def _schema(kind: Kind) -> Schema:
    match kind:
        case Record(keys=keys, required=required):
            record: Schema = {
                "type": _or_nothing("object", empty=not required),
                "properties": {key.name: _key(key.kind, key.doc, key.default) for key in keys},
                "additionalProperties": False,
            }
            return {**record, "required": list(required)} if required else record
        case MapOf(name=name, kind=inner):
            return {
                "type": _or_nothing("object", empty=True),
                "propertyNames": _text(name),
                "additionalProperties": _schema(inner),
            }
        case ListOf(kind=inner, minimum=minimum):
            return {
                "type": _or_nothing("array", empty=not minimum),
                "items": _schema(inner),
                "minItems": minimum,
            }
        case Free(minimum=minimum):
            return {"type": _or_nothing("object", empty=not minimum), "minProperties": minimum}
        case _:
            return _scalar(kind)


def _scalar(kind: ScalarKind) -> Schema:
    match kind:
        case Text():
            return _text(kind)
        case Flag():
            return {"type": "boolean"}
        case Whole(minimum=low, maximum=high):
            return {"type": "integer", "minimum": low, "maximum": high}
        case Real(minimum=low, maximum=high):
            return {"type": "number", "minimum": low, "maximum": high}
        case Span():
            return {"type": "string", "pattern": _whole(DURATION_PATTERN), "examples": ["500ms", "30s", "2m", "1h"]}
        case Size(minimum=low, maximum=high):
            written = {"type": "string", "pattern": _whole(SIZE_PATTERN), "examples": ["64KB", "10MiB"]}
            return {"anyOf": [{"type": "integer", "minimum": low, "maximum": high}, written]}
        case Choice(values=values, pattern=pattern):
            listed: Schema = {"enum": list(values)}
            return {"anyOf": [listed, {"type": "string", "pattern": _whole(pattern)}]} if pattern else listed
        case Constant(value=value):
            return {"const": value}


def _text(kind: Text) -> Schema:
    schema: Schema = {"type": "string", "pattern": _whole(kind.pattern), "maxLength": kind.max_bytes}
    return {**schema, "examples": [kind.example]} if kind.example else schema


def _key(kind: Kind, doc: str, default: Any) -> Schema:
    schema = {"description": doc, **_schema(kind)}
    return schema if default is None else {**schema, "default": default}


def _or_nothing(name: str, *, empty: bool) -> str | list[str]:
    # `queues:` with nothing behind it is null in YAML and means an empty mapping
    return [name, "null"] if empty else name


def _whole(pattern: str) -> str:
    return f"^(?:{pattern})$"
