"""What an event type's data must look like. In: a model class, a JSON Schema file or nothing. Out: a `Payload`.

Validators are built once per type (a pydantic `TypeAdapter`, or a compiled JSON Schema) and only called per event.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema_rs
from pydantic import PydanticSchemaGenerationError, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, from_json, to_json

from pipeline.errors import ConfigurationError, InvalidPayload, UndecodableBody
from pipeline.topology.model import EventType

ERRORS_SHOWN = 5  # of one payload; the rest are counted


@dataclass(frozen=True, slots=True)
class Payload:
    """How data of one type is read and written.

    `read` bytes → data, `check` any value → data, `write` data → bytes. The first two raise InvalidPayload with the
    path of each fault and never the value found there, which may be a secret; `write` does when data has no JSON form.
    `read` raises UndecodableBody for what is not JSON.
    """

    read: Callable[[bytes], Any]
    check: Callable[[Any], Any]
    write: Callable[[Any], bytes]
    annotation: Any = Any


def from_declaration(event: EventType) -> Payload:
    """The payload an event type declares. Raises: ConfigurationError when its model or schema can't be had."""
    if event.model:
        return from_annotation(_import(event))
    if event.schema:
        return _from_schema(event)
    return any_json()


def any_json() -> Payload:
    """Any JSON value."""
    return Payload(_read_json, _same, _write)


def from_annotation(annotation: Any) -> Payload:
    """The payload of a type annotation: a pydantic or SQLModel class, a TypedDict, a dataclass, `dict[str, int]`...

    Raises: ConfigurationError when pydantic can't validate it.
    """
    if annotation is Any:
        return any_json()
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(annotation)
    except PydanticSchemaGenerationError as error:
        raise ConfigurationError(f"{annotation!r} can't be used as an event's model: {error}") from error
    validate_json, validate = adapter.validate_json, adapter.validate_python
    dump = adapter.dump_json

    def read(body: bytes) -> Any:
        try:
            return validate_json(body)
        except ValidationError as error:
            if error.errors(include_url=False, include_input=False)[0]["type"] == "json_invalid":
                raise UndecodableBody(f"body is not JSON: {_describe(error)}") from error
            raise InvalidPayload(_describe(error)) from error

    def check(value: Any) -> Any:
        try:
            # An instance may have been changed since it was made, and a SQLModel table class never checks: look again.
            return validate(value.model_dump() if hasattr(value, "model_dump") else value)
        except ValidationError as error:
            raise InvalidPayload(_describe(error)) from error

    def write(value: Any) -> bytes:
        try:
            return dump(value)
        except PydanticSerializationError as error:
            raise InvalidPayload(f"data has no JSON form: {error}") from error

    return Payload(read, check, write, annotation)


def _import(event: EventType) -> Any:
    module_name, _, class_name = event.model.partition(":")
    try:
        return getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(
            f"model {event.model!r} of event {event.name!r} can't be imported ({error}); "
            "is the command run where that package is found?"
        ) from error


def _from_schema(event: EventType) -> Payload:
    try:
        schema = json.loads(Path(event.schema).read_text())
        validator = jsonschema_rs.validator_for(schema)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"schema {event.schema} of event {event.name!r} can't be used: {error}") from error

    def check(value: Any) -> Any:
        if not validator.is_valid(value):
            faults = [
                f"{'.'.join(str(part) for part in fault.instance_path) or '(whole)'}: breaks {_keyword(fault)}"
                for fault in validator.iter_errors(value)
            ]
            raise InvalidPayload(_join(faults))
        return value

    return Payload(lambda body: check(_read_json(body)), check, _write)


def _keyword(fault: jsonschema_rs.ValidationError) -> str:
    return repr("/".join(str(part) for part in fault.schema_path))


def _read_json(body: bytes) -> Any:
    try:
        return from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise UndecodableBody(f"body is not JSON: {error}") from error


def _write(value: Any) -> bytes:
    try:
        return to_json(value, inf_nan_mode="constants")
    except PydanticSerializationError as error:
        raise InvalidPayload(f"data has no JSON form: {error}") from error


def _same(value: Any) -> Any:
    return value


def _describe(error: ValidationError) -> str:
    faults = [
        f"{'.'.join(str(part) for part in fault['loc']) or '(whole)'}: {fault['msg']}"
        for fault in error.errors(include_url=False, include_input=False, include_context=False)
    ]
    return _join(faults)


def _join(faults: list[str]) -> str:
    more = f"; and {len(faults) - ERRORS_SHOWN} more" if len(faults) > ERRORS_SHOWN else ""
    return "; ".join(faults[:ERRORS_SHOWN]) + more
