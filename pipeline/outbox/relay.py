"""Publishes what waits in the outbox. In: rows of the producer's store. Out: confirmed events, rows taken out.

Read in order, published in bulk, taken out when confirmed: an event goes out at least once, and always under its own
id, so that inboxes drop the doubles. One relay at a time is active; the others wait for its lease.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

from pipeline.amqp.publisher import Publisher
from pipeline.errors import PublishError, PublishInterrupted, PublishTimeout, StoreUnavailable
from pipeline.log import get_logger
from pipeline.outbox.held import HeldRoutes, Route, route_of
from pipeline.outbox.position import Position
from pipeline.store.patience import patiently
from pipeline.store.producer import ProducerStore, Waiting

log = get_logger("outbox")

LEASE = "outbox relay"
LEASE_SECONDS = 5.0  # after which another relay takes over when this one is gone
RENEW = 1.0  # s
BATCH = 1000  # events a publish, at most
POLL = 0.1  # s between looks for what other processes accepted
FIRST_PAUSE = 0.1  # s after a publish of which nothing was confirmed; doubled each time
LONGEST_PAUSE = 2.0  # s
CONFIRM = 10.0  # s a publish may take: after a restart the broker may forget what it was given while it elected leaders
GRACE = 5.0  # s for the batch in hand when told to stop; what is not confirmed by then goes out again
WHOSE = "producer"


def holder_name() -> str:
    """A name for this process's relay that no other has, and that tells a person where it is."""
    return f"{socket.gethostname()} {os.getpid()} {secrets.token_hex(3)}"


class Relay:
    """Publishes the outbox of `store` for as long as it holds the lease as `holder`."""

    def __init__(self, store: ProducerStore, publisher: Publisher, holder: str) -> None:
        self._store = store
        self._publisher = publisher
        self._deadline = min(CONFIRM, publisher.settings.publish_deadline)
        self._holder = holder
        self._wake = asyncio.Event()
        self._until = 0.0  # the lease is ours; monotonic
        self._size = BATCH
        self._pause = FIRST_PAUSE
        self._held = HeldRoutes()
        self._position = Position()
        self.last_error: str | None = None
        self.published = 0

    @property
    def active(self) -> bool:
        """Whether this relay is the one that publishes."""
        return time.monotonic() < self._until

    @property
    def held(self) -> dict[Route, str]:
        """Routes (exchange, routing key) whose events wait because the broker refuses them, with its words."""
        return self._held.routes

    def poke(self) -> None:
        """Look at once: something was accepted."""
        self._wake.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Relay until `stop` is set; then end the batch in hand and give the lease back.

        Broker and database may come and go meanwhile. Raises: ConfigurationError when the store can't be used at all.
        """
        tasks = [asyncio.create_task(self._keep_lease()), asyncio.create_task(self._relay(stop))]
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait([*tasks, stopping], return_when=asyncio.FIRST_COMPLETED)
            if stop.is_set():
                self._wake.set()
                await asyncio.wait(tasks[1:], timeout=GRACE)
        finally:
            for task in (*tasks, stopping):
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            await self._release()
        for result in results:
            if isinstance(result, Exception):
                raise result

    # --- the lease ----------------------------------------------------------------------------------------------

    async def _keep_lease(self) -> None:
        said = False
        while True:
            asked = time.monotonic()
            was = self.active
            try:
                ours = await self._store.lease(LEASE, self._holder, LEASE_SECONDS)
                self._until = asked + LEASE_SECONDS if ours else 0.0
            except StoreUnavailable as error:
                self.last_error = str(error)
            now = self.active  # asked once: a process may be frozen at any line, for longer than the lease
            if now and not was:  # another may have published meanwhile
                self._held.clear()
                self._position.back()
                self._wake.set()
            if now and not said:
                log.info("this relay is the active one", holder=self._holder)
            elif said and not now:
                log.warning("this relay is not the active one any more", holder=self._holder)
            said = now
            await asyncio.sleep(RENEW)

    async def _release(self) -> None:
        self._until = 0.0
        with suppress(StoreUnavailable):  # then it runs out by itself
            await self._store.release(LEASE, self._holder)

    # --- publishing ---------------------------------------------------------------------------------------------

    async def _relay(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            rows: Sequence[Waiting] = ()
            if self.active:
                await self._try_held()
                rows = await self._read(self._size, self._position.begin(bool(self._held)))
            if rows and self.active:
                await self._publish(rows)
            else:
                await self._sleep(POLL)

    async def _read(self, limit: int, after: int = 0, only: Route | None = None) -> list[Waiting]:
        without = () if only else list(self._held.routes)
        return await patiently(WHOSE, lambda: self._store.waiting(limit, after, without, only))

    async def _publish(self, rows: Sequence[Waiting]) -> None:
        errors = await self._send(rows)
        unknown = 0
        for index, error in errors.items():
            route = route_of(rows[index].message)
            if not isinstance(error, PublishInterrupted | PublishTimeout):
                if route not in self._held:
                    self._hold(rows[index], error)
            elif isinstance(error, PublishInterrupted) and len(rows) == 1:
                self._hold(rows[index], error)  # what ends the connection is the event itself, or seems to be
            else:
                unknown += 1
        if not unknown:
            self._size = min(self._size * 2, BATCH)
            self._pause = FIRST_PAUSE
            self._position.reached(rows[-1].seq)
            return
        if any(isinstance(error, PublishInterrupted) for error in errors.values()):
            # One event that the broker can't bear ends the channel for all that are on it: it is found by halves.
            self._size = max(1, len(rows) // 2)
        if unknown == len(rows):
            log.warning("nothing was confirmed, trying again", n=unknown, error=self.last_error)
            await asyncio.sleep(self._pause)
            self._pause = min(self._pause * 2, LONGEST_PAUSE)

    async def _send(self, rows: Sequence[Waiting]) -> dict[int, PublishError]:
        """Publish once, take out what is confirmed; the errors by index."""
        errors = await self._publisher.send([row.message for row in rows], self._deadline)
        if errors:
            self.last_error = str(next(iter(errors.values())))
        elif not self._held:
            self.last_error = None
        done = [row for index, row in enumerate(rows) if index not in errors]
        if done:
            await patiently(WHOSE, partial(self._store.mark_published, done))
            self.published += len(done)
        return errors

    async def _try_held(self) -> None:
        """Try held routes whose time has come with their first event, each by itself."""
        for route in self._held.due():
            rows = await self._read(1, only=route)
            error = (await self._send(rows)).get(0) if rows else None
            if error is not None:
                self._held.hold(route, str(error))
                continue
            self._held.let_go(route)
            self._position.back()
            log.info("events of this route go again", exchange=route[0], routing_key=route[1])

    def _hold(self, row: Waiting, error: PublishError) -> None:
        route = route_of(row.message)
        self._held.hold(route, str(error))
        log.warning(
            "the broker refuses an event; those of its route wait, others go on",
            event_id=row.event_id,
            exchange=route[0],
            routing_key=route[1],
            error=str(error),
        )

    async def _sleep(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        self._wake.clear()
