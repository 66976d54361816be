"""Whether every accepted event ended once, everywhere. In: what clients were told, databases, queues. Out: faults.

Counted in the producer's and the workers' databases and in the dead-letter queues; no counter of ours is asked.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
import urllib.request
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

import asyncpg

from scripts.chaos.load import Done
from scripts.up.place import Place

ORDER = "order.created"
FOLLOW_UPS = {"payments": "payment.taken", "inventory": "stock.reserved"}  # what each sends for an order
SUBSCRIPTIONS = (*FOLLOW_UPS, "orders")
PATIENCE = 120.0  # s until everything is settled
MOST = 100_000  # dead letters that are read


@dataclass(frozen=True, slots=True)
class Books:
    """What was found."""

    accepted: int  # requests answered 202
    events: int  # in the producer's database
    processed: Mapping[str, int]  # order events, by subscription
    dead: Mapping[str, int]  # distinct events
    copies: Mapping[str, int]  # letters beyond one an event: a worker or the broker ended between copy and ack
    wrong: list[str] = field(default_factory=list)  # sentences; empty when the books balance


async def settled(place: Place) -> bool:
    """Wait until as much has ended as was accepted; False when that takes too long.

    Not until queues are empty: what RabbitMQ says of their length is up to five seconds old.
    """
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        events = (await _rows(place, "producer", "SELECT count(*) FROM pipeline_event"))[0][0]
        queues = await asyncio.to_thread(_manage, place, "GET", "/api/queues/%2F?columns=name,messages")
        letters = {q["name"].removesuffix(".dlq"): q.get("messages", 0) for q in queues if q["name"].endswith(".dlq")}
        inboxes = {name: await _inbox(place, name) for name in SUBSCRIPTIONS}
        orders = {name: sum(kind == ORDER for _, kind in inbox) for name, inbox in inboxes.items()}
        answers = {kind: sum(each == kind for _, each in inboxes["orders"]) for kind in FOLLOW_UPS.values()}
        ended = all(orders[name] + letters[name] >= events for name in SUBSCRIPTIONS)
        if ended and all(answers[kind] >= orders[name] for name, kind in FOLLOW_UPS.items()):
            return True
        await asyncio.sleep(1)
    return False


async def balance(place: Place, done: Sequence[Done]) -> Books:
    """Compare everything with everything. The dead-letter queues are empty afterwards."""
    wrong: list[str] = []
    if not await settled(place):
        wrong.append(f"after {PATIENCE:.0f} s events are still on their way")
    told = {each.number: each.event_id for each in done if not each.reads and each.status == 202}
    unsure = {each.number for each in done if not each.reads and each.status != 202}

    events = {row[0]: json.loads(row[1])["order_id"] for row in await _rows(place, "producer", EVENTS)}
    by_order = Counter(events.values())
    wrong += [f"order {number} was sent once and is {count} events" for number, count in by_order.items() if count > 1]
    wrong += [
        f"order {number} was accepted as {told[number]}, which is gone" for number in told if told[number] not in events
    ]
    wrong += [f"order {number}: nobody sent it" for number in by_order if number not in told and number not in unsure]

    processed, dead, copies = {}, {}, {}
    inboxes: dict[str, Counter[str]] = {}
    for name in SUBSCRIPTIONS:
        rows = await _inbox(place, name)
        inboxes[name] = Counter(row[1] for row in rows)
        here = Counter(row[0] for row in rows if row[1] == ORDER)
        letters = Counter(await asyncio.to_thread(_dead_letters, place, name))
        processed[name], dead[name], copies[name] = here.total(), len(letters), letters.total() - len(letters)
        for event_id, number in events.items():
            if here[event_id] + (event_id in letters) != 1:
                wrong.append(
                    f"{name}: order {number} was processed {here[event_id]} times, dead {letters[event_id]} times"
                )
        wrong += [f"{name}: dead letter {each} is no accepted event" for each in letters if each not in events]
    for name, kind in FOLLOW_UPS.items():
        if inboxes["orders"][kind] != processed[name]:
            wrong.append(f"{name} processed {processed[name]} orders, and orders got {inboxes['orders'][kind]} {kind}")
    for name, table in (("payments", "payment"), ("inventory", "reservation")):
        rows = (await _rows(place, name, f"SELECT count(*) FROM {table}"))[0][0]  # noqa: S608 - a name of ours
        if rows != processed[name]:
            wrong.append(f"{name} processed {processed[name]} orders and has {rows} rows")
    return Books(len(told), len(events), processed, dead, copies, wrong)


EVENTS = "SELECT id, payload FROM pipeline_event"


async def _inbox(place: Place, name: str) -> list[Any]:
    """(event id, type) of everything a subscription has processed."""
    return await _rows(place, name, "SELECT event_id, event_type FROM pipeline_inbox WHERE subscription = $1", name)


async def _rows(place: Place, box: str, query: str, *parameters: str) -> list[Any]:
    connection = await asyncpg.connect(place.secret(f"{box}-db_url"), timeout=30)
    try:
        return list(await connection.fetch(query, *parameters))
    finally:
        await connection.close()


def _dead_letters(place: Place, subscription: str) -> list[str]:
    """The ids of a subscription's dead letters, taken out: put back, some would be read twice and others never."""
    ask = {"count": MOST, "ackmode": "ack_requeue_false", "encoding": "auto", "truncate": 10}
    found = _manage(place, "POST", f"/api/queues/%2F/{subscription}.dlq/get", ask)
    return [str(each["properties"]["message_id"]) for each in found]


def _manage(place: Place, method: str, path: str, body: object = None) -> Any:
    parts = urlsplit(place.secret("management_url"))
    login = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}".encode()
    headers = {"Authorization": f"Basic {base64.b64encode(login).decode()}", "Content-Type": "application/json"}
    bare = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], path, "", ""))
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(bare, data=data, method=method, headers=headers)  # noqa: S310 - our own http
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=30) as answer:
        return json.load(answer)
