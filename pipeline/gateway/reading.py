"""`GET /events/{id}` and `GET /subscriptions/{name}/results/{id}`. In: ids. Out: where an event is, what came of it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Literal

from fastapi import APIRouter, Request, Response

from pipeline.gateway.attributes import LONGEST_ID
from pipeline.gateway.parts import Parts, path_part
from pipeline.gateway.problems import refused
from pipeline.observe.status import State, SubscriptionStatus

NO_STORE = {"cache-control": "no-store"}  # X-API-Key is nothing that a shared cache would look at
STALE = '110 - "Response is Stale"'


@dataclass(frozen=True, slots=True)
class At:
    """Where an event is for one subscription. `unknown`: its database does not answer."""

    subscription: str
    state: State
    attempt: int
    next_at: datetime | None
    reason: str
    error: str
    at: datetime | None
    result: str | None  # where its result is, once it is processed


@dataclass(frozen=True, slots=True)
class EventView:
    """An accepted event and where it is."""

    id: str
    type: str
    source: str
    subject: str | None
    time: datetime
    status: Literal["accepted", "published"]
    accepted_at: datetime
    published_at: datetime | None
    subscriptions: list[At]


def routes(parts: Parts) -> APIRouter:
    """Both."""
    router = APIRouter(tags=["read"])

    @router.get("/events/{id:path}", summary="Where an event is", operation_id="event")
    async def event(request: Request, response: Response, id: str) -> EventView:
        caller = await parts.door.enter(request)
        if not (caller.may_any("read") or caller.may_any("publish")):
            raise refused(403, "scope", "these credentials have neither a read: nor a publish: scope")
        stored = await parts.store.event(id) if _possible(id) else None
        if stored is None:
            raise refused(404, "unknown-event", "no event with this id was accepted here, or it is forgotten")
        taking = [each.name for each in parts.topology.subscriptions.values() if stored.type in each.events]
        readable = {name for name in taking if caller.may("read", name)}
        if not (caller.may("publish", stored.type) or caller.may("read", stored.type) or readable):
            raise refused(403, "scope", f"these credentials don't have the scope read:{stored.type}")
        response.headers.update(NO_STORE)
        found = await parts.statuses.of(stored.id, stored.type)
        return EventView(
            stored.id,
            stored.type,
            stored.source,
            stored.subject,
            stored.time,
            "published" if stored.status == "published" else "accepted",
            stored.accepted_at,
            stored.published_at,
            [_at(stored.id, each, each.subscription in readable) for each in found],
        )

    @router.get(
        "/subscriptions/{name}/results/{id:path}",
        summary="What a handler returned",
        operation_id="result",
        response_class=Response,
    )
    async def result(request: Request, name: str, id: str) -> Response:
        caller = await parts.door.enter(request)
        caller.require("read", name)
        if name not in parts.topology.subscriptions:
            raise refused(404, "unknown-subscription", "the topology has no such subscription")
        if not _possible(id):
            raise refused(404, "no-result", "there is no such event")
        cached = await parts.cache.get(name, id, partial(parts.statuses.result, name, id))
        if cached.value is None:
            raise refused(404, "no-result", "no result: the event is not processed, or its handler returned none")
        headers = {
            "age": str(int(cached.age)),
            "x-cache": cached.state,
            "etag": f'"{hashlib.sha256(cached.value).hexdigest()[:32]}"',
            "cache-control": "private, no-cache",
        }
        if cached.state == "stale":
            headers["warning"] = STALE
        if _matches(request.headers.get("if-none-match", ""), headers["etag"]):
            return Response(None, 304, headers)
        return Response(cached.value, 200, headers, "application/json")

    return router


def _at(event_id: str, found: SubscriptionStatus, readable: bool) -> At:
    """`readable` decides about the handler's own words, which may tell of data."""
    link = f"/subscriptions/{path_part(found.subscription)}/results/{path_part(event_id)}"
    return At(
        found.subscription,
        found.state,
        found.attempt,
        found.next_at,
        found.reason,
        found.error if readable and found.state != "unknown" else "",
        found.at,
        link if found.state == "processed" else None,
    )


def _possible(event_id: str) -> bool:
    """Whether an accepted event may have this id at all: no database is asked about what can't be."""
    return len(event_id.encode("utf-8", "replace")) <= LONGEST_ID and event_id.isprintable()


def _matches(asked: str, etag: str) -> bool:
    return asked.strip() == "*" or etag in {each.strip().removeprefix("W/") for each in asked.split(",")}
