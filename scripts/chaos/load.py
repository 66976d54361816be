"""Ordinary requests at a steady rate. In: an address, an API key. Out: what became of each request.

Half of the requests carry an id: a CloudEvents id or an Idempotency-Key. The other half carry none, as a client in a
hurry would. Every sixth request only reads. A few orders are such that a worker refuses them: dead letters.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from scripts.chaos.client import Answer, Client

CLIENTS = 64  # that may wait for an answer at the same time
READS = 6  # one request in so many
STOLEN, DISCONTINUED = 20, 23  # one order in so many is refused by payments, by inventory


@dataclass(frozen=True, slots=True)
class Done:
    """One request: `seconds` it took, from when it was due, and what it was answered."""

    number: int  # of the order, for one that sends an event; of the request, for one that reads
    reads: bool
    due: float  # monotonic
    seconds: float
    status: int
    event_id: str = ""
    words: str = ""  # of an answer that is a failure

    @property
    def failed(self) -> bool:
        """Whether the client did not get what it came for. An event that is not known yet is an answer."""
        return self.status not in (200, 404) if self.reads else self.status != 202


class Load:
    """Sends until it is stopped."""

    def __init__(self, door: str, key: str, rate: float) -> None:
        parts = urlsplit(door)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self._headers = {"Authorization": f"Bearer {key}"}
        self._rate = rate
        self._due: asyncio.Queue[tuple[int, float] | None] = asyncio.Queue()
        self._tasks: list[asyncio.Task[None]] = []
        self._latest = ""
        self._under_way: set[float] = set()  # when each was due
        self._answer = asyncio.Event()
        self.done: list[Done] = []

    def start(self) -> None:
        """Begin."""
        self._tasks = [asyncio.create_task(self._serve()) for _ in range(CLIENTS)]
        self._clock = asyncio.create_task(self._tick())

    async def stop(self) -> None:
        """Send no more, and wait for the answers."""
        self._clock.cancel()
        for _ in self._tasks:
            self._due.put_nowait(None)
        await asyncio.gather(*self._tasks)
        await asyncio.gather(self._clock, return_exceptions=True)

    async def answered(self, before: float) -> None:
        """Wait until every request that was due before that moment has its answer."""
        while any(due < before for due in self._under_way):
            self._answer.clear()
            await self._answer.wait()

    async def _tick(self) -> None:
        began, number = time.monotonic(), 0
        while True:
            number += 1
            due = began + number / self._rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            self._under_way.add(due)
            self._due.put_nowait((number, due))

    async def _serve(self) -> None:
        client = Client(self._host, self._port)
        while (next_one := await self._due.get()) is not None:
            number, due = next_one
            if number % READS == 0 and self._latest:
                answer = await self._read(client, number)
                self._note(number, True, due, answer, "")
            else:
                answer = await self._publish(client, number)
                event_id = str(json.loads(answer.body)["id"]) if answer.status == 202 else ""
                self._latest = event_id or self._latest
                self._note(number, False, due, answer, event_id)
        await client.close()

    def _note(self, number: int, reads: bool, due: float, answer: Answer, event_id: str) -> None:
        words = "" if answer.status in (200, 202) else answer.body[:300].decode(errors="replace")
        self._under_way.discard(due)
        self._answer.set()
        self.done.append(Done(number, reads, due, time.monotonic() - due, answer.status, event_id, words))

    async def _read(self, client: Client, number: int) -> Answer:
        event_id = quote(self._latest, safe="")
        paths = (f"/events/{event_id}", f"/subscriptions/payments/results/{event_id}")
        return await client.send("GET", paths[number // READS % 2], self._headers)

    async def _publish(self, client: Client, number: int) -> Answer:
        headers = {**self._headers, "Content-Type": "application/json", **identity(number)}
        return await client.send("POST", "/events/order.created", headers, order(number))


def identity(number: int) -> Mapping[str, str]:
    """What makes a request one event however often it is sent; nothing for half of them."""
    if number % 4 == 1:
        return {"Idempotency-Key": f"order-{number}"}
    if number % 4 == 3:
        return {"ce-specversion": "1.0", "ce-id": f"order-{number}", "ce-type": "order.created", "ce-source": "/chaos"}
    return {}


def order(number: int) -> bytes:
    """An order's JSON."""
    data = {
        "order_id": number,
        "customer": f"customer-{number % 100}",
        "sku": "discontinued" if number % DISCONTINUED == 0 else f"sku-{number % 97}",
        "quantity": number % 5 + 1,
        "amount": f"{number % 200 + 1}.50",
        "card": "stolen" if number % STOLEN == 0 else "good",
    }
    return json.dumps(data).encode()
