"""`POST /events/{type}` and `POST /events`. In: a request. Out: events committed to the outbox, and 202.

door ─► scope ─► body ─► CloudEvents or plain JSON ─► validate and encode ─► outbox ─► 202
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from pipeline.event import Event, new_id, utc_now
from pipeline.gateway.attributes import Defaults, invalid
from pipeline.gateway.body import read_body
from pipeline.gateway.cloudevents import Found, Reading, Sent, each, read
from pipeline.gateway.parts import Parts, note, path_part
from pipeline.gateway.problems import Problem, Refused, refused
from pipeline.gateway.scopes import Caller
from pipeline.store.producer import Acceptance, NewEvent

MOST_PROPERTIES = 8192  # bytes of all attributes, encoded: AMQP gives them one frame, and the outbox must not jam
IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,255}")
JSON = "application/json"


class Publishing:
    """The endpoint, called directly: FastAPI's layers, routes and parameters would cost more than all the rest."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def __call__(self, request: Request, kind: str) -> Response:
        """Take the events of one request: of type `kind`, or with "" of the types that they say.

        Raises: PipelineError, ClientGone.
        """
        parts = self._parts
        caller = await parts.door.enter(request)
        if kind:
            caller.require("publish", kind)
            parts.codec.payload(kind)  # an unknown type is known before the body is read
        elif not caller.may_any("publish"):
            raise refused(403, "scope", "these credentials have no publish: scope")
        key = _idempotency_key(request)
        body = await read_body(request, parts.options.max_body, parts.options.body_timeout)
        sent = Sent(request.headers.get("content-type", ""), request.headers.raw, body)
        found = read(sent, self._reading(kind, caller, key))
        events = self._checked(found, caller)
        note(request, events=len(events))
        answers = await parts.store.accept(events, parts.options.max_waiting)
        if parts.relay is not None:
            parts.relay.poke()
        return _batch_answer(events, answers) if found.batch else _answer(events[0], answers[0])

    def _reading(self, kind: str, caller: Caller, key: str) -> Reading:
        source, now = self._parts.options.source, utc_now()

        def defaults(index: int) -> Defaults:
            event_id = derived_id(caller.id, kind, key, index) if key else new_id()
            return Defaults(kind, event_id, source, now)

        return Reading(kind, defaults, self._parts.codec.write_json, self._parts.options.max_batch)

    def _checked(self, found: Found, caller: Caller) -> list[NewEvent]:
        """The events validated and encoded, as a publisher would send them."""
        for event in found.events:
            caller.require("publish", event.type)
        if found.batch:
            return each(found.events, lambda _, event: self._encoded(event))
        return [self._encoded(found.events[0])]

    def _encoded(self, event: Event[bytes]) -> NewEvent:
        message = self._parts.codec.encode_raw(event)
        if len(message.properties) > MOST_PROPERTIES:
            raise invalid(("(whole)", f"the attributes take more than {MOST_PROPERTIES} bytes together"))
        return NewEvent(event.id, event.type, event.source, event.subject, event.time, event.data, message)


def derived_id(caller: str, kind: str, key: str, index: int) -> str:
    """The id that a caller's key stands for: the same each time, and another for every other caller and type."""
    return hashlib.sha256("\0".join((caller, kind, key, str(index))).encode()).hexdigest()[:32]


def location(event_id: str) -> str:
    """Where an event can be followed."""
    return f"/events/{path_part(event_id)}"


def _idempotency_key(request: Request) -> str:
    given = request.headers.getlist("idempotency-key")
    if not given:
        return ""
    if len(given) > 1 or IDEMPOTENCY_KEY.fullmatch(given[0]) is None:
        raise refused(400, "idempotency-key", "Idempotency-Key is one header of 1 to 255 visible ASCII characters")
    return given[0]


def _answer(event: NewEvent, answer: Acceptance) -> Response:
    if answer is Acceptance.CONFLICT:
        raise refused(
            409, "conflict", f"another event was accepted under the id {event.id!r}", location=location(event.id)
        )
    return Response(to_json({"id": event.id, "status": answer.value}), 202, {"location": location(event.id)}, JSON)


def _batch_answer(events: Sequence[NewEvent], answers: Sequence[Acceptance]) -> Response:
    ids: dict[Acceptance, list[str]] = {answer: [] for answer in Acceptance}
    for event, answer in zip(events, answers, strict=True):
        ids[answer].append(event.id)
    if conflicts := ids[Acceptance.CONFLICT]:
        more = {"conflicts": conflicts, "accepted": ids[Acceptance.ACCEPTED] + ids[Acceptance.REPEATED]}
        detail = f"under {len(conflicts)} of {len(events)} ids another event was accepted; the others are accepted"
        raise Refused(Problem(409, "conflict", detail, more=more))
    counts = {"accepted": len(ids[Acceptance.ACCEPTED]), "repeated": len(ids[Acceptance.REPEATED])}
    return Response(to_json({**counts, "ids": [event.id for event in events]}), 202, media_type=JSON)
