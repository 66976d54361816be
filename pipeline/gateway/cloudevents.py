"""The CloudEvents HTTP binding and plain JSON. In: content type, headers, body. Out: events, not yet validated.

    application/json, no ce- headers     the data of one event; at `POST /events`, an array of events
    the same with ce- headers            one event, binary mode
    application/cloudevents+json         one event, structured mode
    application/cloudevents-batch+json   events, batched mode
    application/x-ndjson                 the data of one event a line

Binding: "HTTP Protocol Binding for CloudEvents", version 1.0.2, section 3.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

from pydantic_core import from_json

from pipeline.errors import EventError, InvalidPayload, UndecodableBody
from pipeline.event import Event
from pipeline.gateway.attributes import JSON, Defaults, event_from, invalid, json_type
from pipeline.gateway.problems import FAULTS_SHOWN, Fault, Problem, Refused, faults_of, refused

STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"
LINES = ("application/x-ndjson", "application/jsonl")
PREFIX = b"ce-"
TAKEN = f"{JSON}, {STRUCTURED}, {BATCH} and {LINES[0]} are taken"


@dataclass(frozen=True, slots=True)
class Reading:
    """How to read a request: `defaults` gives those of the event with that number; `write` makes JSON of a value."""

    type: str  # as the address says, "" when each event has to
    defaults: Callable[[int], Defaults]
    write: Callable[[Any], bytes]
    most: int  # events a batch


@dataclass(frozen=True, slots=True)
class Sent:
    """What of a request matters here."""

    content_type: str
    headers: Sequence[tuple[bytes, bytes]]
    body: bytes


@dataclass(frozen=True, slots=True)
class Found:
    """The events of a request, and whether it was a batch, which is answered as one."""

    events: list[Event[bytes]]
    batch: bool


def read(sent: Sent, reading: Reading) -> Found:
    """The events in a request.

    Raises: Refused (415, 413 for too many, 400), EventError for a single event.
    """
    essence = sent.content_type.partition(";")[0].strip().lower()
    if essence == STRUCTURED:
        return Found([_structured(_parsed(sent.body), 0, reading, strict=True)], False)
    if essence == BATCH:
        return Found(_batch(sent.body, reading, strict=True), True)
    if essence in LINES:
        return Found(_lines(sent.body, reading), True)
    try:
        essence = json_type(sent.content_type)
    except InvalidPayload:
        raise refused(415, "media-type", f"{TAKEN}, in UTF-8", accept_post=TAKEN.removesuffix(" are taken")) from None
    attributes = _binary(sent.headers)
    if attributes:
        attributes["datacontenttype"] = essence
        return Found([event_from(attributes, sent.body, reading.defaults(0), strict=True)], False)
    if not reading.type:
        return Found(_batch(sent.body, reading, strict=False), True)
    defaults = reading.defaults(0)
    plain = Event(defaults.type, sent.body, defaults.id, defaults.source, defaults.time, datacontenttype=essence)
    return Found([plain], False)


def each(events: Sequence[Any], make: Callable[[int, Any], Any]) -> list[Any]:
    """`make` of each; when some fail, none is taken. Raises: Refused with the faults, as many as an answer shows."""
    made, faults = [], list[Fault]()
    for index, event in enumerate(events):
        try:
            made.append(make(index, event))
        except EventError as error:
            faults += faults_of(error, index)
            if len(faults) > FAULTS_SHOWN:
                break  # the rest would take its time, and change nothing
    if faults:
        wrong = len({fault.index for fault in faults})
        more = " or more" if len(faults) > FAULTS_SHOWN else ""
        detail = f"{wrong}{more} of {len(events)} events are not as their types declare; none was taken"
        raise Refused(Problem(400, "invalid-event", detail, faults))
    return made


def _binary(headers: Sequence[tuple[bytes, bytes]]) -> dict[str, str]:
    """The attributes in ce- headers."""
    found: dict[str, str] = {}
    for name, value in headers:
        if name.startswith(PREFIX):
            key = name[len(PREFIX) :].decode("ascii", "replace")
            if key in found:
                raise invalid((key, "is given twice"))
            if key == "datacontenttype":
                raise invalid((key, "is the header Content-Type in binary mode"))
            found[key] = _header_text(key, value)
    return found


def _header_text(name: str, value: bytes) -> str:
    """A header's value decoded: section 3.1.3.2."""
    if len(value) >= 2 and value[:1] == value[-1:] == b'"':
        value = value[1:-1].replace(b"\\\\", b"\0").replace(b"\\", b"").replace(b"\0", b"\\")
    try:
        return unquote_to_bytes(value).decode()
    except UnicodeDecodeError:
        raise invalid((name, "is not UTF-8, percent-encoded")) from None


def _structured(whole: Any, index: int, reading: Reading, strict: bool) -> Event[bytes]:
    if not isinstance(whole, dict):
        raise invalid(("(whole)", "must be an object"))
    return event_from(whole, _data(whole, reading), reading.defaults(index), strict)


def _data(whole: Mapping[str, Any], reading: Reading) -> bytes:
    if "data" in whole:
        if "data_base64" in whole:
            raise invalid(("data_base64", "there is data as well"))
        return reading.write(whole["data"])
    if "data_base64" not in whole:
        raise invalid(("data", "is required"))
    try:
        return b64decode(whole["data_base64"], validate=True)
    except (ValueError, TypeError):
        raise invalid(("data_base64", "is not base64")) from None


def _batch(body: bytes, reading: Reading, strict: bool) -> list[Event[bytes]]:
    whole = _parsed(body)
    if not isinstance(whole, list):
        raise invalid(("(whole)", "must be an array of events"))
    _check_number(len(whole), reading.most)
    return each(whole, lambda index, one: _structured(one, index, reading, strict))


def _lines(body: bytes, reading: Reading) -> list[Event[bytes]]:
    if not reading.type:
        raise refused(415, "media-type", "lines hold data only: send them to /events/{type}")
    lines = [line for line in body.split(b"\n") if line and not line.isspace()]
    _check_number(len(lines), reading.most)
    defaults = [reading.defaults(index) for index in range(len(lines))]
    return [Event(its.type, line, its.id, its.source, its.time) for its, line in zip(defaults, lines, strict=True)]


def _check_number(number: int, most: int) -> None:
    if not number:
        raise invalid(("(whole)", "there is no event in it"))
    if number > most:
        raise refused(413, "too-many", f"{number} events; at most {most} are taken at once")


def _parsed(body: bytes) -> Any:
    try:
        return from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise UndecodableBody(f"body is not JSON: {error}") from error
