"""What an event type's data must look like. In: a model class, a JSON Schema file or nothing. Out: a `Payload`.

Validators are built once per type (a pydantic `TypeAdapter`, or a compiled JSON Schema) and only called per event.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jsonschema_rs
from pydantic import PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, from_json, to_json

from pipeline.errors import ConfigurationError, InvalidPayload, UndecodableBody
from pipeline.topology.model import EventType

ERRORS_SHOWN = 5  # of one payload; the rest are counted
WHOLE = "(whole)"  # the path of a fault that is in no part alone


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
    except PydanticUserError as error:
        raise ConfigurationError(f"{annotation!r} can't be used as an event's model: {error}") from error
    # A SQLModel table class checks nothing when pydantic makes its instances, only when it is asked itself.
    table = getattr(annotation, "model_config", {}).get("table")
    validate = annotation.model_validate if table else partial(adapter.validate_python, by_alias=True, by_name=True)

    def check(value: Any) -> Any:
        try:
            return validate(_taken_apart(adapter, value))
        except ValidationError as error:
            raise _invalid(_faults(error)) from error

    def write(value: Any) -> bytes:
        try:
            # Without what is computed from the rest, which a model that forbids extra fields would not read again.
            return adapter.dump_json(value, by_alias=True, round_trip=True)
        except PydanticSerializationError as error:
            raise InvalidPayload(f"data has no JSON form: {error}") from error

    read = (lambda body: check(_read_json(body))) if table else partial(_read_model, adapter)
    return Payload(read, check, write, annotation)


def _read_model(adapter: TypeAdapter[Any], body: bytes) -> Any:
    try:
        return adapter.validate_json(body, by_alias=True, by_name=True)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        if fault["type"] == "json_invalid" and not fault["loc"]:
            raise UndecodableBody(f"body is not JSON: {_invalid(_faults(error))}") from error
        raise _invalid(_faults(error)) from error


def _taken_apart(adapter: TypeAdapter[Any], value: Any) -> Any:
    """`value` as plain data, for an instance may have been changed since it was made, or never been checked."""
    if isinstance(value, dict):
        return value
    if hasattr(value, "model_dump"):
        return value.model_dump(round_trip=True, warnings=False)
    try:
        return adapter.dump_python(value, round_trip=True, warnings=False)
    except PydanticSerializationError as error:
        raise InvalidPayload(f"data does not fit its model: {error}") from error


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

    def check_json(value: Any) -> Any:
        if not validator.is_valid(value):
            raise _invalid([_breach(fault) for fault in validator.iter_errors(value)])
        return value

    def check(value: Any) -> Any:
        return check_json(_read_json(_write(value)))  # dates, decimals, models: as they will stand in the body

    return Payload(lambda body: check_json(_read_json(body)), check, _write)


def _breach(fault: jsonschema_rs.ValidationError) -> tuple[str, str]:
    path = [str(part) for part in fault.instance_path]
    if isinstance(fault.kind, jsonschema_rs.ValidationErrorKind.Required):
        return ".".join([*path, fault.kind.property]), "is required"
    return ".".join(path) or WHOLE, f"breaks {'/'.join(str(part) for part in fault.schema_path)!r}"


def _read_json(body: bytes) -> Any:
    try:
        return from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise UndecodableBody(f"body is not JSON: {error}") from error


def _write(value: Any) -> bytes:
    try:
        body = to_json(value, inf_nan_mode="constants")
        if b"NaN" in body or b"Infinity" in body:  # as a number, or within a text
            from_json(body, allow_inf_nan=False)
    except (PydanticSerializationError, ValueError) as error:
        raise InvalidPayload(f"data has no JSON form: {error}") from error
    return body


def _same(value: Any) -> Any:
    return value


def _faults(error: ValidationError) -> list[tuple[str, str]]:
    """(path, what is wrong) of each fault; never the value found there."""
    faults = []
    for fault in error.errors(include_url=False, include_input=False):
        told = fault["msg"]
        if fault["type"] == "union_tag_invalid":  # pydantic's own words name the value
            told = f"{fault['ctx']['discriminator']} must be one of {fault['ctx']['expected_tags']}"
        faults.append((".".join(str(part) for part in fault["loc"]) or WHOLE, told))
    return faults


def _invalid(faults: list[tuple[str, str]]) -> InvalidPayload:
    shown = faults[:ERRORS_SHOWN]
    more = f"; and {len(faults) - ERRORS_SHOWN} more" if len(faults) > ERRORS_SHOWN else ""
    return InvalidPayload("; ".join(f"{path}: {told}" for path, told in shown) + more, shown)
